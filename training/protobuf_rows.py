"""Rows of tables as Protocol Buffers messages: for `saker replay --format protobuf`."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from saker.engine.records.content import SchemaError
from saker.engine.records.formats import Schema, prefix, varint
from saker.engine.records.proto_messages import Messages, well_known
from saker.engine.records.proto_text import parse_proto
from saker.training.tables import TableError


class ProtobufRows:
    """Writes rows as one message, after Confluent's prefix where the schema has an id."""

    def __init__(self, schema: Schema, schema_id: int | None = None) -> None:
        """Raises `TableError` for a schema without the message."""
        try:
            files = _files(schema)
            paths = {name.lstrip("."): path for path, name in Messages(files).paths.items()}
            name = schema.message.lstrip(".") or next(iter(paths), "")
            if name not in paths:
                raise SchemaError(f"it has no message {name!r}; it has {', '.join(paths)}")
            pool = descriptor_pool.DescriptorPool()
            for file in (*well_known(), *files):
                pool.Add(file)
            self._message = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        except (SchemaError, DecodeError, TypeError, KeyError) as error:
            raise TableError(f"the Protobuf schema cannot be used: {error}") from error
        self._prefix = b"" if schema_id is None else prefix(schema_id) + _indices(paths[name])

    def write(self, row: dict[str, Any]) -> bytes:
        """Fields that the message does not have are left out. Raises `TableError` for a row that does not fit."""
        try:
            message = json_format.ParseDict(row, self._message(), ignore_unknown_fields=True)
        except (json_format.ParseError, AttributeError, TypeError, RecursionError) as error:
            raise TableError(f"it does not fit the Protobuf schema: {str(error)[:300]}") from None
        return self._prefix + bytes(message.SerializeToString())


def _files(schema: Schema) -> list[FileDescriptorProto]:
    """Those of descriptors, or of a source."""
    if schema.descriptors:
        found = FileDescriptorSet.FromString(schema.descriptors)
        known = {file.name for file in well_known()}
        return [file for file in found.file if file.name not in known]
    file = parse_proto(schema.text)
    file.name = "saker_rows.proto"
    file.dependency[:] = [one.name for one in well_known()]
    return [file]


def _indices(path: tuple[int, ...]) -> bytes:
    """Which message of its file a record is: a 0 for the first, otherwise how many numbers and these, in zigzag."""
    if path == (0,):
        return b"\0"
    return b"".join(varint(2 * number) for number in (len(path), *path))
