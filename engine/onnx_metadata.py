"""The `metadata_props` of an ONNX file, read with the standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from saker.engine.errors import ModelRefused

#: Where the exporter writes the report of its proof; a file without it was not proven tree by tree.
PARITY_KEY = "saker.parity"
UNPROVEN = "not proven by `saker export`: served without the proof of its trees"


def read_metadata(model: bytes | str | Path) -> dict[str, str]:
    """The `metadata_props` of an ONNX file or of its bytes; raises `ModelRefused` when it is no such file."""
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    try:
        return _metadata(data)
    except (IndexError, UnicodeDecodeError) as error:
        raise ModelRefused("model: this is not an ONNX file, or it is cut short") from error


def is_proven(model: bytes | str | Path) -> bool:
    """Whether `saker export` proved the file against its library; one of other origin has a contract and no proof."""
    return PARITY_KEY in read_metadata(model)


# ModelProto.metadata_props is field 14, a list of StringStringEntryProto {1: key, 2: value}
# (onnx/onnx.proto3); the protobuf wire format is simple enough not to load a library for one string.
_METADATA_PROPS = 14
_LENGTH_DELIMITED = 2


def _metadata(data: bytes) -> dict[str, str]:
    entries = (dict(_strings(value)) for number, value in _strings(data) if number == _METADATA_PROPS)
    return {entry.get(1, b"").decode(): entry.get(2, b"").decode() for entry in entries}


def _strings(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of one protobuf message as (number, bytes); others are stepped over."""
    fixed = {1: 8, 5: 4}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _LENGTH_DELIMITED:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise IndexError
            yield tag >> 3, data[at : at + size]
            at += size
        elif wire == 0:
            _, at = _varint(data, at)
        elif wire in fixed:
            at += fixed[wire]
        else:
            raise IndexError


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
        shift += 7
