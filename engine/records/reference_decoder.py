"""The definition of correct: one record at a time to one row, slow and plain. docs/reference/records.md is the same in words.

The native decoders must give the same bits and the same rejection for every input, and hand a record over to this one when they
meet something that they do not know.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from saker.engine.contract import DERIVATIONS, UNITS, Contract, Feature
from saker.engine.field_tree import Branch, Field, Input, field_tree
from saker.engine.kernels.identity import UNKEYED, Identify, identity_bytes
from saker.engine.paths import Path
from saker.engine.records import rejection as faults
from saker.engine.records.content import Map, Moment, Number, Object, Refused, Time
from saker.engine.records.json_text import parse_json
from saker.engine.records.rejection import Rejection
from saker.engine.velocity import NO_TIME

_OVERFLOW = 2.0**128 - 2.0**103  # the least number that rounds to infinity in float32
# RFC 8259, section 6. `[0-9]` and not `\d`, which matches full-width digits too.
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FRACTION_OF_ZEROS = re.compile(r"\.0+\Z")
# RFC 3339, with a date alone, a time without seconds, and no offset (UTC) as ISO 8601 has them; no leap second.
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]+))?)?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):?([0-5][0-9]))?)?"
)
#: How inputs of velocity features are read: as a feature of that kind.
_VALUE = Feature("value")
_TIMES = {
    per_second: Feature("time", "derived", source="time", derivation="seconds", unit=unit) for unit, per_second in UNITS.items()
}
_FAR_MS = 2.0**62  # farther away than any time that counts
_EPOCH = date(1970, 1, 1).toordinal()


class _Row:
    """What is known of one record: its columns, its inputs, its identifier, and where it has values."""

    __slots__ = ("columns", "filled", "identifier", "inputs")

    def __init__(self, width: int) -> None:
        self.columns = [math.nan] * width
        self.inputs = dict[int, int | float | bytes]()
        self.identifier: Any = None
        self.filled: set[Path] = set()


class Reference:
    """Decodes single records by the contract; keeps no state between records."""

    def __init__(
        self,
        contract: Contract,
        parse: Callable[[bytes], Object] = parse_json,
        identify: Identify = UNKEYED,
    ) -> None:
        """identify: the hash of identities, where the contract has velocity features."""
        self._parse, self._tree, self._identify = parse, field_tree(contract), identify
        self._layout = contract.velocity_layout
        self._id_label = contract.id_path or contract.id_field
        self._required = sorted((field for field in self._tree.fields() if field.required), key=lambda one: one.first_required)
        self._codes = {
            feature.name: {text: code for code, text in enumerate(feature.vocabulary)}
            for feature in contract.features
            if feature.kind == "category"
        }

    def decode(
        self, index: int, value: bytes | None, row: NDArray[np.float32], inputs: NDArray[np.int64] | None = None
    ) -> bytes | Rejection:
        """Fill `row` (f,), and `inputs` as `Layout` has them, and return the identifier as JSON; or why the record at `index`
        cannot be scored."""
        try:
            if not value:
                raise Refused(faults.EMPTY)
            found = _Row(len(row))
            self._walk(self._tree, self._parse(value), found)
            if found.identifier is None:
                raise Refused(faults.NO_IDENTIFIER, self._id_label)
            for field in self._required:
                if field.path not in found.filled:
                    raise Refused(faults.MISSING, field.label)
        except Refused as refused:
            return refused.fault.of(index, refused.field, refused.where)
        row[:] = found.columns
        if inputs is not None and self._layout is not None:
            self._store(found.inputs, inputs)
        return found.identifier.encode() if isinstance(found.identifier, Number) else orjson.dumps(found.identifier)

    def _walk(self, branch: Branch, content: Object | list[Any], row: _Row) -> None:
        """Read the fields below `branch`, an object or an array, in the order of the record."""
        seen: set[str | int] = set()
        for key, value in content if isinstance(content, Object) else enumerate(content):
            child = branch.children.get(key)
            if child is None and isinstance(content, Map):
                continue
            if key in seen:
                raise Refused(faults.REPEATED, branch.label_of(key))
            seen.add(key)
            if isinstance(child, Field):
                self._read(child, value, row)
            elif child is not None and value is not None:
                if child.is_array != (type(value) is list) or not isinstance(value, list):
                    raise Refused(faults.NO_ARRAY if child.is_array else faults.NO_OBJECT, child.label)
                self._walk(child, value, row)

    def _read(self, field: Field, content: Any, row: _Row) -> None:
        if isinstance(content, bool) and field.is_identifier:
            raise Refused(faults.BOOLEAN, field.label)
        if isinstance(content, list):
            raise Refused(faults.NESTED, field.label)
        if isinstance(content, bytes) or (isinstance(content, float) and field.is_identifier):
            raise Refused(faults.OTHER_TYPE, field.label)
        if isinstance(content, str) and not _is_unicode(content):
            raise Refused(faults.NOT_TEXT, field.label)
        if field.is_identifier and content not in (None, ""):
            row.identifier = content
        for column, feature in field.columns:
            if not self._misses(feature, content):
                row.columns[column] = self._column(feature, content, field.label)
                row.filled.add(field.path)

        for one in field.inputs:
            if (found := self._input(one, content, field.label)) is not None:
                row.inputs[one.word] = found

    def _input(self, one: Input, content: Any, label: str) -> int | float | bytes | None:
        """The value for velocity features, None where it is missing."""
        if content is None or content == "" or (isinstance(content, float) and math.isnan(content)):
            return None
        if one.kind == "identity":
            if isinstance(content, Moment):
                raise Refused(faults.OTHER_TYPE, label)
            return identity_bytes(content, is_number=isinstance(content, Number))
        if one.kind == "value":
            return self._column(_VALUE, content, label)
        milliseconds = self._column(_TIMES[one.per_second], content, label) * 1000
        return round(milliseconds) if abs(milliseconds) < _FAR_MS else None

    def _store(self, found: dict[int, int | float | bytes], inputs: NDArray[np.int64]) -> None:
        inputs[:] = 0
        inputs[0] = NO_TIME
        inputs[1 : 1 + len(self._layout.values if self._layout else ())].view(np.float64)[:] = math.nan
        for word, value in found.items():
            if isinstance(value, bytes):
                inputs[word : word + 2] = np.frombuffer(self._identify(value), np.int64)
            elif isinstance(value, float):
                inputs[word : word + 1].view(np.float64)[0] = value
            else:
                inputs[word] = value

    def _misses(self, feature: Feature, content: str | float | None) -> bool:
        if isinstance(content, float):
            return math.isnan(content)
        return content is None or (content == "" and "" not in self._codes.get(feature.name, ()))

    def _column(self, feature: Feature, content: str | float, label: str) -> float:
        if feature.kind == "category":
            if isinstance(content, float):
                raise Refused(faults.OTHER_TYPE, label)
            codes, text = self._codes[feature.name], json.dumps(content) if isinstance(content, bool) else content
            if isinstance(text, Number) and text not in codes:
                text = _FRACTION_OF_ZEROS.sub("", text)
            return codes.get(text, math.nan)
        if isinstance(content, bool):
            content = Number(int(content))
        if isinstance(content, Time | Moment) and feature.derivation:
            return DERIVATIONS[feature.derivation](content.seconds if isinstance(content, Time) else content)
        if isinstance(content, str) and not isinstance(content, Number) and not _JSON_NUMBER.fullmatch(content):
            if feature.derivation and (seconds := time_of(content)) is not None:
                return DERIVATIONS[feature.derivation](seconds)
            raise Refused(faults.NOT_A_TIME if feature.derivation else faults.NOT_A_NUMBER, label)
        number = float(content)
        if abs(number) >= _OVERFLOW:
            raise Refused(faults.OUT_OF_RANGE, label)
        return DERIVATIONS[feature.derivation](number / UNITS[feature.unit or "s"]) if feature.derivation else number


def _is_unicode(text: str) -> bool:
    """False where bytes of a string are not UTF-8: they were decoded with surrogateescape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def time_of(text: str) -> float | None:
    """Seconds since 1970 of a time in ISO 8601, None for another text; of a fraction, nine digits count."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, ahead_hours, ahead_minutes = found.groups("0")
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:  # no such day
        return None
    whole = days * 86400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    ahead = int(ahead_hours) * 3600 + int(ahead_minutes) * 60
    return (whole + ahead if sign == "-" else whole - ahead) + int(fraction[:9].ljust(9, "0")) / 1e9
