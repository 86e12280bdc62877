"""JSON as the reference reads it. orjson judges what JSON is, and the standard library takes it apart, because it can keep a
number as it is written and shows repeated fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import orjson

from saker.engine.records import rejection as faults
from saker.engine.records.content import Number, Object, Refused
from saker.engine.records.rejection import MAX_DEPTH

# A text that does not end is taken whole and once (possessive): tried from each quote in it, that would take quadratic time.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def too_deep(data: bytes, most: int) -> int:
    """Where the first bracket is that makes UTF-8 text nest deeper than `most` objects and arrays; -1 if there is none."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match.group(), 0)
        if depth > most:
            return match.start()
    return -1


def parse_json(value: bytes, deeper: Callable[[bytes, int], int] = too_deep) -> Object:
    """The record as it is written; raises `Refused`. deeper: `too_deep`, or the native one."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise Refused(faults.NOT_UTF8, where=error.start) from None
    if value.count(b"[") + value.count(b"{") > MAX_DEPTH and (where := deeper(value, MAX_DEPTH)) >= 0:
        raise Refused(faults.TOO_DEEP, where=where)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "infinity" not in error.msg:  # a number beyond float64 is JSON; what follows it orjson has not seen
            raise Refused(faults.NOT_JSON, where=_byte(text, error.pos)) from None
    try:
        record = json.loads(text, object_pairs_hook=Object, parse_float=Number, parse_int=Number, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(record, ensure_ascii=False).encode()  # the other thing that json takes and orjson does not
    except json.JSONDecodeError as error:
        raise Refused(faults.NOT_JSON, where=_byte(text, error.pos)) from None
    except ValueError:
        raise Refused(faults.NOT_JSON) from None
    if not isinstance(record, Object):
        raise Refused(faults.NOT_AN_OBJECT)
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _byte(text: str, position: int) -> int:
    return len(text[:position].encode())
