"""Models that saker did not train: their contracts, and a LightGBM model file to a proven ONNX file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.contract import UNITS, Contract, Feature, Golden
from saker.engine.history.table_history import history_of
from saker.engine.paths import find, parse_path, place
from saker.engine.records.decode import Decoder
from saker.export.errors import UnsupportedModel
from saker.export.onnx_writer.objectives import transform_of
from saker.export.proof.adversarial_rows import adversarial_rows
from saker.export.proven_export import Proven, export_proven
from saker.export.readers.ensemble import Ensemble
from saker.export.readers.lightgbm_file import open_model_file
from saker.export.readers.open_source import open_source
from saker.export.readers.source import Source

_GOLDEN, _ROWS = 8, 1_000
_GOLDEN_TIME = 1_600_000_000  # of the first golden record with velocity features, in seconds


def contract_for(
    booster: Any,
    threshold: float = 0.5,
    id_field: str = "TransactionID",
    *,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    sources: Mapping[str, str] | None = None,
    paths: Mapping[str, str] | None = None,
    required: Collection[str] = (),
    column: int | None = None,
    iterations: int | None = None,
) -> Contract:
    """A contract for a model that saker did not train: its feature names, all of them numbers and optional.

    vocabularies: feature -> the values of its codes 0, 1, ... in a record. Default: the vocabularies of the pandas frame
        that a Booster was trained on. A categorical feature without one reads its codes as numbers.
    sources: feature -> the top-level field that it reads, if that has another name.
    paths: feature -> the path of its value, such as after.card.amount. docs/reference/records.md
    required: features without which a record is rejected.
    column: the output that is the score, of a model with several outputs.

    Golden records are made from the model's own thresholds, their scores by its own library. A model with several
    outputs and without `column` has none: `saker.to_onnx` writes it, but it cannot be served. Raises `UnsupportedModel`,
    also if a Booster does not record which vocabulary belongs to which feature, and `BrokenModel`.
    """
    source = open_source(booster, iterations)
    ensemble = source.ensemble
    known = dict(vocabularies) if vocabularies is not None else _pandas_vocabularies(ensemble)
    for what, named in (("vocabularies", known), ("sources", sources or {}), ("paths", paths or {}), ("required", required)):
        if unknown := sorted(set(named) - set(ensemble.feature_names)):
            names = _some(ensemble.feature_names)
            raise UnsupportedModel(what, f"the model has no feature {', '.join(unknown)}; it has {names}")
    if column is not None and not 0 <= column < ensemble.n_outputs:
        raise UnsupportedModel("column", f"expected one of the model's outputs, 0 to {ensemble.n_outputs - 1}, got {column}")
    contract = _contract(ensemble, known, threshold, id_field)
    if vocabularies is None or vocabularies:
        _check_categories(ensemble, contract)
    features = tuple(
        replace(
            feature,
            source=(sources or {}).get(feature.name),
            path=(paths or {}).get(feature.name),
            required=feature.name in required,
        )
        for feature in contract.features
    )
    return _completed(source, replace(contract, features=features, column=column))


def likely_contract(booster: Any) -> tuple[Contract, list[str]]:
    """A contract to start from, without golden records, and notes on what to check in it."""
    ensemble = open_source(booster).ensemble
    vocabularies = [_as_text(values) for values in ensemble.categories or []]
    categorical = _categorical(ensemble)
    in_order = dict(zip(categorical, vocabularies, strict=False)) if len(categorical) == len(vocabularies) else {}
    # If the owner of a vocabulary is unknown, the category has none yet, and an export rejects it until it is written in.
    known = {
        name: in_order[name] if name in in_order and largest < len(in_order[name]) else ()
        for name, largest in categorical.items()
        if vocabularies
    }
    notes = [f"{ensemble.source}, {ensemble.n_features} features, {ensemble.n_outputs} output(s)."]
    if ensemble.n_outputs > 1:
        notes.append(f"column = K, from 0 to {ensemble.n_outputs - 1}, has to say which output is the score.")
    if vocabularies:
        notes.append("The vocabularies in the Booster, in the order of the frame's columns; it does not say whose they are:")
        notes += ["  " + json.dumps(values, ensure_ascii=False) for values in vocabularies]
    return _contract(ensemble, known, 0.5, "TransactionID"), notes


def export_file(
    path: Path,
    contract: Contract | None,
    report: Callable[[str], None] = lambda _: None,
    *,
    compare_onnxmltools: bool = False,
    **changes: Any,
) -> Proven:
    """A LightGBM model file of any release since 2.2, exported and proven; no run, no registry.

    contract: as `features_file.read_features` gives it; without it, what `contract_for` makes. `changes` replace fields of it.

    Raises what `open_model_file`, `contract_for` and `export_proven` raise.
    """
    booster = open_model_file(path)
    report(f"{path}: {booster.num_trees():,} trees, {booster.num_feature()} features")
    source = open_source(booster)
    names = source.ensemble.feature_names
    if contract is None:
        contract = _contract(source.ensemble, _pandas_vocabularies(source.ensemble), 0.5, "TransactionID")
    elif (named := tuple(feature.name for feature in contract.features)) != names:
        wrong = next((pair for pair in zip(names, named, strict=False) if pair[0] != pair[1]), (len(names), len(named)))
        raise UnsupportedModel("features", f"expected the model's features in its order: {wrong[0]}, got {wrong[1]}")
    _check_categories(source.ensemble, contract)
    if source.ensemble.n_outputs > 1 and contract.column is None:
        raise UnsupportedModel(
            "outputs",
            f"the model has {source.ensemble.n_outputs} outputs, and an engine serves one: run `saker models describe {path} > "
            "features.toml`, write `column = K` into it, and pass --features features.toml",
        )
    meaning = transform_of(source.ensemble).meaning
    contract = _completed(source, replace(contract, score=meaning, **changes))
    return export_proven(booster, contract, compare_onnxmltools=compare_onnxmltools)


def _place_for_velocity(record: dict[str, Any], contract: Contract, number: int) -> None:
    """What velocity features read and no other feature does: the records are a second apart, of one key."""
    if not contract.velocity:
        return
    values = {path: 1 for _, one in contract.velocity for path in one.by}
    values |= {one.of: 1 + number % 3 for _, one in contract.velocity if one.of is not None and one.of not in values}
    if contract.event_time is not None:
        values[contract.event_time.path] = int((_GOLDEN_TIME + number) * UNITS[contract.event_time.unit])
    for path, value in values.items():
        if find(record, parse_path(path)) is None:
            place(record, parse_path(path), value)


def golden_records(
    contract: Contract, rows: NDArray[np.float32], score: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> tuple[Golden, ...]:
    """Records that JSON can hold and the contract takes, near `rows` (n, f), with the scores that `score` gives them."""
    records = []
    for number, row in enumerate(rows.tolist()):
        record: dict[str, Any] = {}
        for feature, value in zip(contract.features, row, strict=True):
            if feature.kind == "category":
                known = 0 <= value < len(feature.vocabulary)
                instead = feature.vocabulary[0] if feature.required and feature.vocabulary else None
                place(record, feature.steps, feature.vocabulary[int(value)] if known else instead)
            elif feature.kind == "number" or (feature.kind == "derived" and find(record, feature.steps) is None):
                place(record, feature.steps, value if np.isfinite(value) else 0.0 if feature.required else None)
        if find(record, contract.id_steps) is None:  # it may be a feature, too
            place(record, contract.id_steps, number)
        _place_for_velocity(record, contract, number)
        records.append(json.dumps(record))
    decoded = Decoder(contract, history=history_of(contract)).decode([record.encode() for record in records])
    if not decoded.ids:  # one field cannot be two things, say a number and a category of words
        first = decoded.rejections[0]
        raise UnsupportedModel("features", f"no record fits all of them: {first.message}")
    scores = score(decoded.matrix).tolist()
    return tuple(
        Golden(
            records[index],
            tuple(None if np.isnan(value) else value for value in row),
            score,
            tuple(records[:index]) if contract.velocity else (),
        )
        for index, row, score in zip(decoded.indices.tolist(), decoded.matrix.tolist(), scores, strict=True)
    )


def _contract(ensemble: Ensemble, vocabularies: Mapping[str, Sequence[str]], threshold: float, id_field: str) -> Contract:
    features = tuple(
        Feature(name, "category", vocabulary=tuple(vocabularies[name])) if name in vocabularies else Feature(name)
        for name in ensemble.feature_names
    )
    return Contract(features, id_field=id_field, threshold=threshold, score=transform_of(ensemble).meaning)


def _completed(source: Source, contract: Contract) -> Contract:
    """With golden records, where one output is the score."""
    contract = replace(contract, tolerance=source.relative_tolerance)
    if source.ensemble.n_outputs > 1 and contract.column is None:
        return contract
    rows = adversarial_rows(source.ensemble, max_rows=_ROWS).rows
    rows = rows[np.linspace(0, len(rows) - 1, _GOLDEN).astype(int)]
    return replace(
        contract, golden=golden_records(contract, rows, lambda matrix: source.scores(matrix, 1)[:, contract.column or 0])
    )


def _categorical(ensemble: Ensemble) -> dict[str, int]:
    """The categorical features and the largest code of each."""
    named = zip(ensemble.feature_names, ensemble.codes, strict=True)
    return {name: largest for name, largest in named if largest is not None}


def _pandas_vocabularies(ensemble: Ensemble) -> dict[str, Sequence[str]]:
    """The Booster keeps one vocabulary for each pandas column of categories, in order, and not which column it was.

    An ordered category is a number to LightGBM, and its vocabulary is kept like the others. So the categorical features are
    the columns in question only if their codes fit and no feature of whole numbers fits as well.
    """
    vocabularies = ensemble.categories
    if not vocabularies:
        return {}
    columns = _categorical(ensemble)
    pairs = list(zip(columns.values(), vocabularies, strict=False))
    fit = len(columns) == len(vocabularies) and all(largest < len(values) for largest, values in pairs)
    full = all(largest == len(values) - 1 for largest, values in pairs)

    def may_be_one(largest: int | None) -> bool:
        return largest is not None and any(
            largest == len(values) - 1 if full else largest < len(values) for values in vocabularies
        )

    ordered = [name for name, count in zip(ensemble.feature_names, ensemble.counts, strict=True) if may_be_one(count)]
    if not fit or ordered:
        also = f", and {_some(ordered)} may be ordered categories" if ordered else ""
        raise UnsupportedModel(
            "vocabularies",
            f"the Booster has {len(vocabularies)} pandas vocabularies ({_some(map(str, vocabularies))}) and {len(columns)} "
            f"categorical features ({_some(columns)}){also}; it does not say which belongs to which. "
            "Run `saker models describe MODEL > features.toml`, look, and pass --features features.toml; "
            'in Python pass vocabularies={"feature": ["value of code 0", ...]}',
        )
    return {name: _as_text(values) for name, values in zip(columns, vocabularies, strict=True)}


def _as_text(vocabulary: Sequence[Any]) -> list[str]:
    """The pandas categories of a column as in a record: numbers and booleans by their JSON text.

    Raises `UnsupportedModel` for values that JSON cannot express, and for two with the same text.
    """
    texts = []
    for value in vocabulary:
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, float) and plain.is_integer():
            plain = int(plain)  # 4829.0, which pandas makes of 4829 in a column with missing values
        if not isinstance(plain, (str, bool, int, float)):
            raise UnsupportedModel("vocabularies", f"expected strings or numbers for categories, got {plain!r}")
        texts.append(plain if isinstance(plain, str) else json.dumps(plain))
    if twice := [text for text, count in Counter(texts).items() if count > 1]:
        raise UnsupportedModel("vocabularies", f"two categories are {twice[0]} in a record; give them other names to train on")
    return texts


def _check_categories(ensemble: Ensemble, contract: Contract) -> None:
    """A feature that the Booster knows as a column of pandas categories is one in the contract, with as many values."""
    vocabularies = [_as_text(values) for values in ensemble.categories or []]
    for feature, largest in zip(contract.features, ensemble.codes or [None] * ensemble.n_features, strict=True):
        if largest is None:
            continue
        if feature.kind != "category" and vocabularies:
            wrong = f"kind is {feature.kind}"
        elif feature.kind == "category" and len(feature.vocabulary) <= largest:
            wrong = f"its vocabulary has {len(feature.vocabulary)} values"
        elif any(set(feature.vocabulary) == set(known) and list(feature.vocabulary) != known for known in vocabularies):
            wrong = "its vocabulary has the values in another order"
        else:
            continue
        raise UnsupportedModel(
            "categories",
            f"feature {feature.name!r} is categorical in the model, with codes up to {largest}, and {wrong}: write kind = "
            '"category" and, as its vocabulary, what the codes 0, 1, ... were called in training, in this order'
            + (f"; the Booster knows {_some(json.dumps(values) for values in vocabularies)}" if vocabularies else ""),
        )


def _some(values: Any) -> str:
    shown = list(values)
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")  # noqa: PLR2004 - a few
