"""The definition of correct: one record at a time to one row, slow and plain. docs/reference/records.md is the same in words.

The native decoder must give the same bits and the same rejection for every input, and hands a record over to this one when it
meets something that it does not know. orjson judges what JSON is and the standard library takes it apart, because it can keep a
number as it is written and shows repeated fields.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from saker.engine.contract import DERIVATIONS, Contract, Feature
from saker.engine.records import rejection as faults
from saker.engine.records.rejection import MAX_DEPTH, Fault, Rejection

_OVERFLOW = 2.0**128 - 2.0**103  # the least number that rounds to infinity in float32
# RFC 8259, section 6. `[0-9]` and not `\d`, which matches full-width digits too.
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FRACTION_OF_ZEROS = re.compile(r"\.0+\Z")
# A text that does not end is taken whole and once (possessive): tried from each quote in it, that would take quadratic time.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


class _Number(str):
    """A JSON number as it is written, a type of its own to distinguish it from a string."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """A JSON object as its fields in order, to see repeated ones."""


class _Refused(Exception):
    """Leaves the walk through a record; never leaves this module."""

    def __init__(self, fault: Fault, field: str | None = None, where: int | None = None) -> None:
        super().__init__(fault)
        self.fault, self.field, self.where = fault, field, where


class Reference:
    """Decodes single records by the contract; keeps no state between records."""

    def __init__(self, contract: Contract) -> None:
        self._id_field = contract.id_field
        self._required = [feature.field for feature in contract.features if feature.required]
        self._readers: dict[str, list[tuple[int, Feature]]] = {}
        for column, feature in enumerate(contract.features):
            self._readers.setdefault(feature.field, []).append((column, feature))
        self._codes = {
            feature.name: {text: code for code, text in enumerate(feature.vocabulary)}
            for feature in contract.features
            if feature.kind == "category"
        }

    def decode(self, index: int, value: bytes | None, row: NDArray[np.float32]) -> bytes | Rejection:
        """Fill `row` (f,) and return the identifier as JSON; or why the record at `index` cannot be scored."""
        try:
            return self._decode(value, row)
        except _Refused as refused:
            return refused.fault.of(index, refused.field, refused.where)

    def _decode(self, value: bytes | None, row: NDArray[np.float32]) -> bytes:
        if not value:
            raise _Refused(faults.EMPTY)
        columns = [math.nan] * len(row)
        identifier: Any = None
        seen: set[str] = set()
        filled: set[str] = set()
        for name, content in _fields(value):
            if name in seen:
                raise _Refused(faults.REPEATED, name)
            seen.add(name)
            if name != self._id_field and name not in self._readers:
                continue
            if isinstance(content, bool) and name == self._id_field:
                raise _Refused(faults.BOOLEAN, name)
            if isinstance(content, list):
                raise _Refused(faults.NESTED, name)
            if name == self._id_field and content not in (None, ""):
                identifier = content
            for column, feature in self._readers.get(name, ()):
                if not self._misses(feature, content):
                    columns[column] = self._column(feature, content)
                    filled.add(name)
        if identifier is None:
            raise _Refused(faults.NO_IDENTIFIER, self._id_field)
        for name in self._required:
            if name not in filled:
                raise _Refused(faults.MISSING, name)
        row[:] = columns
        return identifier.encode() if isinstance(identifier, _Number) else orjson.dumps(identifier)

    def _misses(self, feature: Feature, content: str | bool | None) -> bool:
        return content is None or (content == "" and "" not in self._codes.get(feature.name, ()))

    def _column(self, feature: Feature, content: str | bool) -> float:
        if feature.kind == "category":
            codes, text = self._codes[feature.name], json.dumps(content) if isinstance(content, bool) else content
            if isinstance(text, _Number) and text not in codes:
                text = _FRACTION_OF_ZEROS.sub("", text)
            return codes.get(text, math.nan)
        if isinstance(content, bool):
            content = _Number(int(content))
        if not isinstance(content, _Number) and not _JSON_NUMBER.fullmatch(content):
            raise _Refused(faults.NOT_A_NUMBER, feature.field)
        number = float(content)
        if abs(number) >= _OVERFLOW:
            raise _Refused(faults.OUT_OF_RANGE, feature.field)
        return DERIVATIONS[feature.derivation](number) if feature.derivation else number


def _fields(value: bytes) -> _Object:
    """The fields of the record as they are written."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise _Refused(faults.NOT_UTF8, where=error.start) from None
    _check_depth(text)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "infinity" not in error.msg:  # a number beyond float64 is JSON; what follows it orjson has not seen
            raise _Refused(faults.NOT_JSON, where=_byte(text, error.pos)) from None
    try:
        record = json.loads(
            text, object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_no_constant
        )
        if "\\u" in text:
            json.dumps(record, ensure_ascii=False).encode()  # the other thing that json takes and orjson does not
    except json.JSONDecodeError as error:
        raise _Refused(faults.NOT_JSON, where=_byte(text, error.pos)) from None
    except ValueError:
        raise _Refused(faults.NOT_JSON) from None
    if not isinstance(record, _Object):
        raise _Refused(faults.NOT_AN_OBJECT)
    return record


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match.group(), 0)
        if depth > MAX_DEPTH:
            raise _Refused(faults.TOO_DEEP, where=_byte(text, match.start()))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _byte(text: str, position: int) -> int:
    return len(text[:position].encode())
