"""Protobuf messages of ONNX: long lists become numpy arrays in one vectorised pass. engine/protobuf.py reads the fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels.errors import Refused
from saker.engine.protobuf import FIXED32, MORE, VARINT, NotProtobuf, payload, varint

_VARINT_BYTES = 10


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def message(data: memoryview, known: Mapping[int, tuple[int, ...]], runs: tuple[int, ...] = ()) -> dict[int, list[Any]]:
    """The values of each field in `known`, which lists its allowed wire types: numbers, or bytes as a memoryview.

    runs: numbers of repeated integer or float32 fields, whose values come as one array.
    """
    try:
        return _message(data, known, runs)
    except NotProtobuf as error:
        raise Refused(str(error)) from error


def _message(data: memoryview, known: Mapping[int, tuple[int, ...]], runs: tuple[int, ...]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {number: [] for number in known}
    at = 0
    while at < len(data):
        begin = at
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        is_run = number in runs and data[begin] == tag
        if wire == VARINT:
            value, at = varint(data, at)
            if is_run:
                value, size = _run(data[begin:], tag)
                at = begin + size
        elif wire == FIXED32 and is_run:
            value = _fixed_run(data[begin:], tag)
            at = begin + len(value) // 4 * 5
        else:
            start, at = payload(data, at, wire)
            value = data[start:at]
        if number not in known:
            continue
        if wire not in known[number]:
            expected = known[number]
            raise Refused(f"field {number} at byte {begin}: wire type {wire}, expected one of {expected}: the file is not ONNX")
        found[number].append(value)
    return found


def integers(values: list[Any]) -> NDArray[np.int64]:
    """A repeated integer field: single values, runs of them, and packed lists."""
    parts = [_packed(v) if isinstance(v, memoryview) else np.array([signed(v)]) if isinstance(v, int) else v for v in values]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def numbers(values: list[memoryview], kind: type[np.generic]) -> NDArray[Any]:
    """A repeated field of little-endian numbers: single values and packed lists."""
    dtype = np.dtype(kind)
    data = b"".join(values)
    if len(data) % dtype.itemsize:
        raise Refused(f"{len(data)} bytes are no whole number of {dtype}: the file is not ONNX")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)


def _packed(data: memoryview) -> NDArray[np.int64]:
    """Integers one behind the other."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array < MORE)
    if len(array) and (not len(ends) or ends[-1] != len(array) - 1):
        raise Refused("a list of integers is cut short: the file is not ONNX")
    return _decode(array, np.concatenate(([0], ends[:-1] + 1)), ends) if len(ends) else np.empty(0, np.int64)


def _fixed_run(data: memoryview, tag: int) -> memoryview:
    """Values of four bytes each behind the same tag of one byte, from the first byte on, one behind the other."""
    for window in _windows(len(data)):
        array = np.frombuffer(data, np.uint8, window // 5 * 5).reshape(-1, 5)
        other = np.flatnonzero(array[:, 0] != tag)
        if len(other) or window == len(data):
            break
    values = array[: other[0] if len(other) else len(array), 1:]
    if not len(values):
        raise Refused(f"a number of four bytes in {len(data)}: the file is cut short or is not ONNX")
    return memoryview(values.tobytes())


def _run(data: memoryview, tag: int) -> tuple[NDArray[np.int64], int]:
    """Integers each behind the same tag of one byte, from the first byte on, and the bytes that they take."""
    for window in _windows(len(data)):
        array = np.frombuffer(data, np.uint8, window)
        ends = np.flatnonzero(array < MORE)  # of tag, value, tag, value ...
        tags, ends = ends[0::2], ends[1::2]
        tags = tags[: len(ends)]
        begins = np.concatenate(([0], ends[:-1] + 1))  # where a tag of one byte must be
        other = np.flatnonzero((tags != begins) | (array[begins] != tag))
        if len(other) or window == len(data):
            break
    count = int(other[0]) if len(other) else len(ends)
    return _decode(array, tags[:count] + 1, ends[:count]), int(ends[count - 1]) + 1


def _windows(length: int) -> Iterator[int]:
    """How much of the data is looked at for the end of a run: four times as much each time, so that many short runs take no
    more time than one long one."""
    window = 256
    while window < length:
        yield window
        window *= 4
    yield length


def _decode(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The varints that take bytes start..end (inclusive) of `data`."""
    values = (data[starts] & 0x7F).astype(np.uint64)
    longer, i = np.flatnonzero(ends > starts), 1
    while len(longer) and i < _VARINT_BYTES:
        values[longer] |= (data[starts[longer] + i] & 0x7F).astype(np.uint64) << np.uint64(7 * i)
        longer, i = longer[ends[longer] - starts[longer] > i], i + 1
    return values.view(np.int64)


def text(values: list[memoryview]) -> str:
    """The last value of a field of text, or an empty one."""
    try:
        return str(values[-1], "utf-8") if values else ""
    except UnicodeDecodeError as error:
        raise Refused("a name is not UTF-8: the file is not ONNX") from error
