"""Contracts for Boosters that saker did not train."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.contract import Contract, Feature, Golden
from engine.decode import Decoder
from export.booster import Ensemble, UnsupportedModel, read_booster
from export.rows import adversarial_rows

_GOLDEN = 8


def contract_for(booster: Any, threshold: float = 0.5, id_field: str = "TransactionID") -> Contract:
    """A contract for a Booster that saker did not train: its feature names, all optional.

    Categories that were a pandas column keep its vocabulary; others are the integer codes that the Booster was given.
    Golden records are made from the Booster's own thresholds.
    """
    ensemble = read_booster(booster)
    vocabularies: Sequence[Sequence[Any]] = booster.pandas_categorical or []
    features = [Feature(name) for name in ensemble.feature_names]
    if vocabularies:
        pandas_columns = _pandas_columns(booster)
        if len(pandas_columns) != len(vocabularies):
            raise UnsupportedModel("the Booster's pandas categories do not match its categorical features")
        for column, vocabulary in zip(pandas_columns, vocabularies, strict=True):
            if not all(isinstance(value, str) for value in vocabulary):
                name = ensemble.feature_names[column]
                raise UnsupportedModel(f"feature {name!r}: its pandas categories are not strings")
            features[column] = Feature(ensemble.feature_names[column], "category", vocabulary=tuple(vocabulary))
    contract = Contract(tuple(features), id_field=id_field, threshold=threshold)
    return replace(contract, golden=_golden(booster, ensemble, contract))


def _pandas_columns(booster: Any) -> list[int]:
    """Columns that LightGBM's header calls categorical: `feature_infos` lists their values instead of a range."""
    text = booster.model_to_string(num_iteration=1)
    infos = next(line for line in text.splitlines() if line.startswith("feature_infos=")).split("=", 1)[1].split(" ")
    return [column for column, info in enumerate(infos) if info != "none" and not info.startswith("[")]


def _golden(booster: Any, ensemble: Ensemble, contract: Contract) -> tuple[Golden, ...]:
    """Records that JSON can hold, made of rows on the Booster's thresholds."""
    rows = next(adversarial_rows(ensemble))
    records = []
    for number, row in enumerate(rows[np.linspace(0, len(rows) - 1, _GOLDEN).astype(int)].tolist()):
        record: dict[str, Any] = {contract.id_field: number}
        for feature, value in zip(contract.features, row, strict=True):
            if not np.isfinite(value):
                record[feature.name] = None
            elif feature.kind == "category":
                known = 0 <= value < len(feature.vocabulary)
                record[feature.name] = feature.vocabulary[int(value)] if known else None
            else:
                record[feature.name] = value
        records.append(json.dumps(record))
    decoded = Decoder(contract).decode([record.encode() for record in records])
    scores = booster.predict(decoded.matrix).tolist()
    return tuple(
        Golden(record, tuple(None if np.isnan(value) else value for value in row), score)
        for record, row, score in zip(records, decoded.matrix.tolist(), scores, strict=True)
    )
