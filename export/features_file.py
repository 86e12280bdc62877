"""Features files: contracts as people write them, for models that saker did not train. docs/reference/features-file.md

id_field = "TransactionID"   # the keys before the first [[features]] may be left out
id_path = "after.id"         # where the identifier is, if not at the top under its name
threshold = 0.5
score = "probability"        # or value, rank, margin
output = "probabilities"     # the model's output that is the score ...
column = 1                   # ... and which of its columns, where it has several

[[features]]                 # one for each column of the model's input, in its order
name = "amount"
required = true

[[features]]
name = "ProductCD"
kind = "category"            # or number (the default), derived
vocabulary = ["W", "H"]      # what the codes 0, 1, ... are called in a record
path = "after.product.code"  # where the value is, if not at the top under the feature's name

[[features]]                 # of earlier records: docs/explanation/velocity.md
name = "card_spend_1h"
kind = "velocity"
by = "card.token"            # or a list of paths
of = "amount"
function = "sum"
window = "1h"
scale = 2

[event_time]                 # of velocity features; without it the Kafka timestamp
path = "created_at"
unit = "ms"

`saker train --velocity` takes a file of such features alone, as [[velocity]] without a kind.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import tomli_w

from saker.engine.contract import Contract, Feature
from saker.engine.errors import ModelRefused
from saker.engine.paths import parse_path
from saker.engine.velocity import EventTime, Velocity, parse_window, window_text
from saker.export.errors import BrokenModel

_TYPES: dict[str, type | tuple[type, ...]] = {
    "id_field": str, "id_path": str, "threshold": (int, float), "score": str, "output": str, "column": int, "features": list,
    "event_time": dict,
}  # fmt: skip
_FEATURE_TYPES: dict[str, type] = {
    "name": str, "kind": str, "required": bool, "vocabulary": list, "source": str, "path": str, "derivation": str, "unit": str,
}  # fmt: skip
_VELOCITY_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str, "by": (str, list), "of": str, "function": str, "window": str, "scale": int,
}  # fmt: skip
_SCORES = ("probability", "value", "rank", "margin")


def read_features(path: Path) -> Contract:
    """The contract that the file describes, without golden records.

    Raises BrokenModel, with the place, for a file that is missing, not TOML, or has other keys than above, and ModelRefused
    for features that contradict themselves.
    """
    document = _load(path, _TYPES)
    features = document.pop("features", [])
    if "event_time" in document:
        document["event_time"] = _event_time(path, document["event_time"])
    if not features:
        raise BrokenModel("features file", f"{path}: expected a [[features]] for each column of the model, got none")
    if document.get("score", "probability") not in _SCORES:
        raise BrokenModel("features file", f"{path}: score must be one of {', '.join(_SCORES)}, got {document['score']!r}")
    return Contract(features=tuple(_feature(path, number, one) for number, one in enumerate(features, 1)), **document)


def _feature(path: Path, number: int, table: Any) -> Feature:
    where = f"feature {number}"
    if isinstance(table, dict) and table.get("kind") == "velocity":
        return _velocity(path, where, {key: value for key, value in table.items() if key != "kind"})
    _check(path, where, table, _FEATURE_TYPES)
    if "name" not in table:
        raise BrokenModel("features file", f"{path}: {where} has no name")
    vocabulary = table.get("vocabulary", ())
    if any(not isinstance(value, (str, int)) for value in vocabulary):
        raise BrokenModel("features file", f"{path}: {where}: the vocabulary must hold strings or whole numbers")
    words = tuple(value if isinstance(value, str) else json.dumps(value) for value in vocabulary)
    return Feature(**{**table, "vocabulary": words})


def _event_time(path: Path, table: Any) -> EventTime:
    _check(path, "event_time", table, {"path": str, "unit": str})
    if "path" not in table:
        raise BrokenModel("features file", f"{path}: event_time has no path")
    return EventTime(**table)


def read_velocity(path: Path) -> tuple[Feature, ...]:
    """The velocity features of a file that has nothing else. Raises BrokenModel and ModelRefused as `read_features`."""
    document = _load(path, {"velocity": list})
    if not document:
        raise BrokenModel("features file", f"{path}: expected a [[velocity]] for each velocity feature, got none")
    return tuple(_velocity(path, f"velocity feature {number}", one) for number, one in enumerate(document["velocity"], 1))


def _velocity(path: Path, where: str, table: Any) -> Feature:
    _check(path, where, table, _VELOCITY_TYPES)
    if missing := [key for key in ("name", "by", "function", "window") if key not in table]:
        raise BrokenModel("features file", f"{path}: {where} has no {' and no '.join(missing)}")
    by = [table["by"]] if isinstance(table["by"], str) else table["by"]
    if not all(isinstance(one, str) for one in by):
        raise BrokenModel("features file", f"{path}: {where}: by must be a path or a list of paths, got {table['by']!r}")
    try:
        window = parse_window(table["window"])
        scale = {"scale": table["scale"]} if "scale" in table else {}
        one = Velocity(tuple(by), table["function"], window, table.get("of"), **scale)
        for each in one.paths:
            parse_path(each)
    except ModelRefused as error:
        raise ModelRefused(f"{path}: velocity feature {table['name']!r}: {error}") from error
    return Feature(table["name"], "velocity", velocity=one)


def write_features(contract: Contract, notes: list[str]) -> str:
    """The file for a contract; `notes` become comments at its top. `read_features` gives the contract back."""
    own = ("features", "event_time")
    document = {key: getattr(contract, key) for key in _TYPES if key not in own and getattr(contract, key) is not None}
    document["features"] = list(map(_table, contract.features))
    if contract.event_time is not None:
        document["event_time"] = asdict(contract.event_time)
    return "".join(f"# {note}\n" for note in notes) + tomli_w.dumps(document)


def _table(feature: Feature) -> dict[str, Any]:
    if (one := feature.velocity) is not None:
        table: dict[str, Any] = {"name": feature.name, "kind": "velocity"}
        table["by"] = one.by[0] if len(one.by) == 1 else list(one.by)
        table |= {"function": one.function, "window": window_text(one.window_ms)}
        if one.of is not None:
            table["of"] = one.of
        if one.of is not None and not one.takes_any_value:
            table["scale"] = one.scale
        return table
    defaults = {field.name: field.default for field in fields(Feature)}
    return {key: getattr(feature, key) for key in _FEATURE_TYPES if key == "name" or getattr(feature, key) != defaults[key]}


def _load(path: Path, types: dict[str, Any]) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BrokenModel("features file", f"{path}: {error}") from error
    _check(path, "the file", document, types)
    return document


def _check(path: Path, where: str, table: Any, types: dict[str, Any]) -> None:
    if not isinstance(table, dict):
        raise BrokenModel("features file", f"{path}: {where}: expected a table, got {table!r}")
    for key, value in table.items():
        if key not in types:
            raise BrokenModel("features file", f"{path}: {where} has {key!r}, expected one of {', '.join(types)}")
        if not isinstance(value, types[key]) or (isinstance(value, bool) and types[key] is not bool):
            raise BrokenModel("features file", f"{path}: {where}: {key} is {value!r}")
