"""What protoc makes of a Protocol Buffers source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def compiled(text: str, folder: Path) -> FileDescriptorSet:
    """With what it imports."""
    (folder / "case.proto").write_text(text)
    out = folder / "case.desc"
    arguments = [f"-I{folder}", f"-I{WELL_KNOWN}", f"--descriptor_set_out={out}", "--include_imports", "case.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    return FileDescriptorSet.FromString(out.read_bytes())


def message_class(text: str, name: str, folder: Path) -> Any:
    """The class of a message in a source."""
    pool = descriptor_pool.DescriptorPool()
    for file in compiled(text, folder).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
