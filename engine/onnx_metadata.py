"""The `metadata_props` of an ONNX file, read with the standard library alone."""

from __future__ import annotations

import mmap
from pathlib import Path

from saker.engine.errors import ModelRefused
from saker.engine.protobuf import NotProtobuf, byte_fields

#: Where the exporter writes the report of its proof; a file without it was not proven tree by tree.
PARITY_KEY = "saker.parity"
UNPROVEN = "not proven by `saker export`: served without the proof of its trees"


def read_metadata(model: bytes | str | Path) -> dict[str, str]:
    """The `metadata_props` of an ONNX file or of its bytes; raises `ModelRefused` when it is no such file."""
    try:
        return _metadata(memoryview(model if isinstance(model, bytes) else _mapped(Path(model))))
    except (NotProtobuf, UnicodeDecodeError) as error:
        raise ModelRefused("model: this is not an ONNX file, or it is cut short") from error


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The file's bytes, of which only those that are read take memory: models may have gigabytes."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def is_proven(model: bytes | str | Path) -> bool:
    """Whether `saker export` proved the file against its library; one of other origin has a contract and no proof."""
    return PARITY_KEY in read_metadata(model)


#: ModelProto.metadata_props, a list of StringStringEntryProto {1: key, 2: value} (onnx/onnx.proto3)
_METADATA_PROPS = 14


def _metadata(data: memoryview) -> dict[str, str]:
    entries = (dict(byte_fields(value)) for number, value in byte_fields(data) if number == _METADATA_PROPS)
    return {str(entry.get(1, b""), "utf-8"): str(entry.get(2, b""), "utf-8") for entry in entries}
