"""Schema ids in headers: values as the decoders take them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from saker.engine.records.formats import Schema, UnknownSchema
from saker.engine.records.header_ids import framed

GUID = bytes(range(16))


class Numbers:
    def get(self, number: int) -> Schema:
        raise UnknownSchema(str(number))

    def number_of(self, guid: bytes) -> int | None:
        return {GUID: 0x80000007}.get(guid)


def frame(value: bytes | None, header: bytes | None) -> bytes | None:
    values: Sequence[bytes | None] = [b"other", value]
    made = framed(values, [(1, header)], Numbers())
    assert made[0] == b"other"
    return made[1]


def test_a_guid_and_an_id() -> None:
    assert frame(b"record", b"\1" + GUID) == b"\0\x80\0\0\7record"
    assert frame(b"record", b"\0\0\0\0\7") == b"\0\0\0\0\7record"
    assert frame(b"message", b"\1" + GUID + b"\2\2") == b"\0\x80\0\0\7\2\2message"
    assert frame(b"message", b"\0\0\0\0\7\0") == b"\0\0\0\0\7\0message"
    assert frame(b"", b"\1" + GUID) == b"\0\x80\0\0\7"
    assert frame(None, b"\1" + GUID) is None


@pytest.mark.parametrize("header", [None, b"", b"\1", b"\1" + GUID[:-1], b"\0\0\0\7", b"\2" + GUID, b"\1" + GUID[::-1]])
def test_a_header_that_names_no_schema_is_not_one(header: bytes | None) -> None:
    """No record begins so: its rejection is `no_schema_id`."""
    assert frame(b"\0\0\0\0\7record", header) == b"\xff\0\0\0\0\7record"


def test_without_a_header_the_values_stay_as_they_are() -> None:
    values = [b"a"]
    assert framed(values, [], Numbers()) is values
