"""The protobuf wire format, one field at a time, with the standard library alone.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MORE = 0x80  # set in every byte of a varint but its last
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_LAST_SHIFT = 63


class NotProtobuf(ValueError):
    """The bytes are cut short, or no message at all."""


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at byte `at`, and the byte after it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > _LAST_SHIFT:
            raise NotProtobuf(f"expected a varint at byte {at} of {len(data)}: the file is cut short or is not ONNX")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < MORE:
            return value, at
        shift += 7


def payload(data: memoryview, at: int, wire: int) -> tuple[int, int]:
    """Where the bytes of a field that is no varint begin and end; `at` is the byte after its tag."""
    begin = at
    if wire == BYTES:
        size, begin = varint(data, at)
    elif wire in _FIXED_BYTES:
        size = _FIXED_BYTES[wire]
    else:
        raise NotProtobuf(f"wire type {wire} at byte {at - 1}: the file is not ONNX")
    if begin + size > len(data):
        raise NotProtobuf(f"a field of {size} bytes at byte {at - 1} goes past the end: the file is cut short")
    return begin, begin + size


def byte_fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of wire type BYTES of one message, as (number, content); others are stepped over."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == VARINT:
            _, at = varint(data, at)
            continue
        begin, at = payload(data, at, tag & 7)
        if tag & 7 == BYTES:
            yield tag >> 3, data[begin:at]
