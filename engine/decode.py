"""JSON bytes to a float32 matrix. A record that cannot be scored is a rejection and leaves its neighbours alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.contract import DERIVATIONS, Contract, Feature

Reason = Literal["empty_record", "invalid_json", "not_an_object", "missing_field", "wrong_type", "out_of_range", "not_finite"]

_NUMBERS = frozenset((int, float, type(None)))
_STRINGS = frozenset((str, type(None)))
_IDS = frozenset((int, str))
_OVERFLOW = 2.0**128 - 2.0**103  # the least number that rounds to infinity in float32


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the record at `index` of the batch cannot be scored, and which field is to blame, if one is."""

    index: int
    reason: Reason
    message: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch: `matrix` (n, f) float32 and `ids` are the accepted records, `indices` their places in the batch.

    `matrix` is a view of the decoder's buffer: it is valid until the next `decode`.
    """

    matrix: NDArray[np.float32]
    ids: list[int | str]
    indices: list[int]
    rejections: list[Rejection]


class Decoder:
    """Turns raw records into the matrix that the contract describes. One matrix is allocated and used again."""

    def __init__(self, contract: Contract, capacity: int = 512) -> None:
        self._id_field = contract.id_field
        self._features = contract.features
        self._matrix: NDArray[np.float32] = np.empty((capacity, len(contract.features)), np.float32)

        numbers = _columns(contract, "number")
        self._number_columns = [column for column, _ in numbers]
        self._number_fields = [feature.field for _, feature in numbers]
        self._required_numbers = [at for at, (_, feature) in enumerate(numbers) if feature.required]

        categories = _columns(contract, "category")
        self._category_columns = [column for column, _ in categories]
        self._category_fields = [feature.field for _, feature in categories]
        self._codes = [{value: float(code) for code, value in enumerate(feature.vocabulary)} for _, feature in categories]
        self._required_categories = [at for at, (_, feature) in enumerate(categories) if feature.required]

        self._derived = _columns(contract, "derived")

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode a batch. Bad records never raise: each is in `rejections`, in the order of the batch."""
        rejections: list[Rejection] = []
        records: list[dict[str, Any]] = []
        indices: list[int] = []
        numbers: list[list[Any]] = []
        categories: list[list[float]] = []
        for index, value in enumerate(values):
            record = self._parse(index, value)
            if isinstance(record, Rejection):
                rejections.append(record)
                continue
            get = record.get
            row = list(map(get, self._number_fields))
            texts: list[Any] = list(map(get, self._category_fields))
            if (
                type(get(self._id_field)) not in _IDS
                or not _NUMBERS.issuperset(map(type, row))
                or not _STRINGS.issuperset(map(type, texts))
                or None in map(row.__getitem__, self._required_numbers)
                or None in map(texts.__getitem__, self._required_categories)
                or not self._derivable(record)
            ):
                rejections.append(self._diagnose(index, record))
                continue
            records.append(record)
            indices.append(index)
            numbers.append(row)
            categories.append([codes.get(text, math.nan) for codes, text in zip(self._codes, texts, strict=True)])

        matrix = self._fill(records, numbers, categories)
        infinite = np.isinf(matrix).any(axis=1)
        if infinite.any():
            # Finite in JSON, infinite as float32: LightGBM would score it, as another number than was sent.
            rejections += [self._diagnose(indices[at], records[at]) for at in np.flatnonzero(infinite)]
            rejections.sort(key=lambda rejection: rejection.index)
            kept = np.flatnonzero(~infinite)
            matrix[: len(kept)] = matrix[kept]
            matrix = matrix[: len(kept)]
            records = [records[at] for at in kept]
            indices = [indices[at] for at in kept]
        return Decoded(matrix, [record[self._id_field] for record in records], indices, rejections)

    @staticmethod
    def _parse(index: int, value: bytes | None) -> dict[str, Any] | Rejection:
        if not value:
            return Rejection(index, "empty_record", "expected a JSON object, got a record without a value")
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            return Rejection(index, "invalid_json", f"expected a JSON object, got invalid JSON: {error}")
        if type(record) is not dict:
            return Rejection(index, "not_an_object", f"expected a JSON object, got {_json_type(record)}")
        return record

    def _derivable(self, record: dict[str, Any]) -> bool:
        for _, feature in self._derived:
            value = record.get(feature.field)
            if type(value) not in _NUMBERS or (value is None and feature.required):
                return False
            if value is not None and abs(value) >= _OVERFLOW:
                return False
        return True

    def _fill(
        self,
        records: list[dict[str, Any]],
        numbers: list[list[Any]],
        categories: list[list[float]],
    ) -> NDArray[np.float32]:
        count = len(records)
        if count > len(self._matrix):
            self._matrix = np.empty((2 * count, self._matrix.shape[1]), np.float32)
        matrix = self._matrix[:count]
        with np.errstate(over="ignore"):  # what overflows is infinite, and is looked for by the caller
            if self._number_columns and count:
                matrix[:, self._number_columns] = np.array(numbers, np.float32)
        if self._category_columns and count:
            matrix[:, self._category_columns] = np.array(categories, np.float32)
        for column, feature in self._derived:
            derive = DERIVATIONS[feature.derivation or ""]
            source = feature.field
            matrix[:, column] = [math.nan if (v := record.get(source)) is None else derive(v) for record in records]
        return matrix

    def _diagnose(self, index: int, record: dict[str, Any]) -> Rejection:
        """The first field that is wrong, in the contract's order, the identifier first."""
        identifier = record.get(self._id_field)
        if identifier is None:
            return _missing(index, self._id_field, "an identifier")
        if type(identifier) not in _IDS:
            return _wrong_type(index, self._id_field, "an identifier (integer or string)", identifier)
        for feature in self._features:
            value = record.get(feature.field)
            expected, types = ("a string", _STRINGS) if feature.kind == "category" else ("a number", _NUMBERS)
            if value is None:
                if feature.required:
                    return _missing(index, feature.field, expected)
            elif type(value) not in types:
                return _wrong_type(index, feature.field, expected, value)
            elif feature.kind != "category" and abs(value) >= _OVERFLOW:
                message = f"field {feature.field!r}: expected a number within float32 (3.4e38), got {value!r}"
                return Rejection(index, "out_of_range", message, feature.field)
        raise AssertionError(f"record {index} was refused, and every field is right")


def _columns(contract: Contract, kind: str) -> list[tuple[int, Feature]]:
    return [(column, feature) for column, feature in enumerate(contract.features) if feature.kind == kind]


def _missing(index: int, field: str, expected: str) -> Rejection:
    return Rejection(index, "missing_field", f"field {field!r}: expected {expected}, got nothing", field)


def _wrong_type(index: int, field: str, expected: str, value: Any) -> Rejection:
    return Rejection(index, "wrong_type", f"field {field!r}: expected {expected}, got {_json_type(value)}", field)


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
