"""Models that saker did not train: their contracts, and a LightGBM model file to a proven ONNX file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract import Contract, Feature, Golden
from engine.decode import Decoder
from export.adversarial import adversarial_rows
from export.ensemble import Ensemble
from export.errors import BrokenModel, UnsupportedModel
from export.objectives import transform_of
from export.proven import Proven, export_proven
from export.source import Source, open_source

_GOLDEN, _ROWS = 8, 1_000


def contract_for(
    booster: Any,
    threshold: float = 0.5,
    id_field: str = "TransactionID",
    *,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    iterations: int | None = None,
) -> Contract:
    """A contract for a model that saker did not train: its feature names, all of them numbers and optional.

    vocabularies: feature -> what its codes 0, 1, ... are called in a record. Without it the vocabularies of a pandas
    frame that a Booster was trained on are used; a categorical feature that has none takes its codes as numbers.

    Golden records are made from the model's own thresholds, their scores by its own library. A model with several
    outputs has none: `export.to_onnx` writes it, the engine serves one score a record. Raises `UnsupportedModel`, when
    a Booster does not say which vocabulary belongs to which feature too, and `BrokenModel`.
    """
    source = open_source(booster, iterations)
    ensemble = source.ensemble
    names = ensemble.feature_names
    known = dict(vocabularies) if vocabularies is not None else _pandas_vocabularies(ensemble)
    if unknown := sorted(set(known) - set(names)):
        raise UnsupportedModel("vocabularies", f"the model has no feature {', '.join(unknown)}; it has {_some(names)}")
    features = tuple(
        Feature(name, "category", vocabulary=tuple(known[name])) if name in known else Feature(name) for name in names
    )
    contract = Contract(
        features,
        id_field=id_field,
        threshold=threshold,
        score=transform_of(ensemble).meaning,
        tolerance=source.relative_tolerance,
    )
    if ensemble.n_outputs > 1:
        return contract
    return replace(contract, golden=_golden(source, contract))


def export_file(path: Path, threshold: float, id_field: str, report: Callable[[str], None] = lambda _: None) -> Proven:
    """A LightGBM model file of any release since 3.0, exported and proven; no run, no registry.

    Raises `BrokenModel` when it is no model file, and what `contract_for` and `export_proven` raise.
    """
    import lightgbm

    if not path.is_file():
        raise BrokenModel("model file", f"no such file: {path}")
    try:
        booster = lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise BrokenModel("model file", f"{path}: LightGBM {lightgbm.__version__} cannot read it: {error}") from error
    report(f"{path}: {booster.num_trees():,} trees, {booster.num_feature()} features")
    return export_proven(booster, contract_for(booster, threshold, id_field))


def _pandas_vocabularies(ensemble: Ensemble) -> dict[str, Sequence[str]]:
    """The Booster keeps one vocabulary for each pandas column of categories, in order, and not which column it was."""
    if not ensemble.categories:
        return {}
    named = zip(ensemble.feature_names, ensemble.codes, strict=True)
    columns = {name: largest for name, largest in named if largest is not None}
    found: dict[str, Sequence[str]] = dict(zip(columns, ensemble.categories, strict=False))
    fits = len(columns) == len(ensemble.categories) and all(
        columns[name] < len(vocabulary) and all(isinstance(value, str) for value in vocabulary)
        for name, vocabulary in found.items()
    )
    if not fits:
        raise UnsupportedModel(
            "vocabularies",
            f"the Booster has {len(ensemble.categories)} pandas vocabularies ({_some(map(str, ensemble.categories))}) "
            f"and {len(columns)} categorical features ({_some(columns)}), and does not say which belongs to which, or "
            'they are not strings; pass vocabularies={"feature": ["value of code 0", ...]}',
        )
    return found


def _some(values: Any) -> str:
    shown = list(values)
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")  # noqa: PLR2004 - a few


def _golden(source: Source, contract: Contract) -> tuple[Golden, ...]:
    """Records that JSON can hold, made of rows on the model's thresholds."""
    rows = adversarial_rows(source.ensemble, max_rows=_ROWS).rows
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
    scores = source.scores(decoded.matrix, 1)[:, 0].tolist()
    return tuple(
        Golden(record, tuple(None if np.isnan(value) else value for value in row), score)
        for record, row, score in zip(records, decoded.matrix.tolist(), scores, strict=True)
    )
