"""What a Protocol Buffers schema says: messages, fields and enums, from a source or from descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from saker.engine.records.content import SchemaError
from saker.engine.records.proto_text import parse_proto

_TYPE_NAMES = {
    value.number: name.removeprefix("TYPE_").lower()
    for name, value in FieldDescriptorProto.Type.DESCRIPTOR.values_by_name.items()
}
_WELL_KNOWN = ("timestamp", "wrappers", "duration", "any", "struct", "empty", "field_mask", "descriptor")


@dataclass(slots=True, eq=False)
class Enum:
    #: Its first name of each number.
    names: dict[int, str]
    #: proto2: a number without a name is no value.
    is_closed: bool


@dataclass(slots=True, eq=False)
class ProtoField:
    """kind: a scalar type by its name in the language, message or enum."""

    name: str
    number: int
    kind: str
    type: Message | Enum | None
    is_repeated: bool
    #: Whether it is known if it was set.
    has_presence: bool
    oneof: int | None
    is_utf8: bool


@dataclass(slots=True, eq=False)
class Message:
    name: str
    fields: list[ProtoField] = field(default_factory=list)
    is_map_entry: bool = False


class Messages:
    """The messages of some files."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        """The last file is the one that records are of. Raises `SchemaError`."""
        self._known: dict[str, tuple[str, Any, FileDescriptorProto]] = {}
        self._made: dict[str, Message | Enum] = {}
        #: Of the last file, by the indices that Confluent's wire format has, in order.
        self.paths: dict[tuple[int, ...], str] = {}
        for file in (*well_known(), *files):
            if file.syntax not in ("", "proto2", "proto3"):
                raise SchemaError(f"{file.name or 'the schema'} has an edition; expected proto2 or proto3")
            scope = f".{file.package}" if file.package else ""
            self.paths = {}
            for place, message in enumerate(file.message_type):
                self._add(scope, message, file, (place,))
            for enum in file.enum_type:
                self._known[f"{scope}.{enum.name}"] = (scope, enum, file)

    def _add(self, scope: str, message: DescriptorProto, file: FileDescriptorProto, path: tuple[int, ...]) -> None:
        name = f"{scope}.{message.name}"
        self._known[name] = (name, message, file)
        if not message.options.map_entry:
            self.paths[path] = name
        for place, inner in enumerate(message.nested_type):
            self._add(name, inner, file, (*path, place))
        for enum in message.enum_type:
            self._known[f"{name}.{enum.name}"] = (name, enum, file)

    def message(self, name: str) -> Message:
        """name: with a dot at its start."""
        found = self._get(name)
        if not isinstance(found, Message):
            raise SchemaError(f"message {name.lstrip('.')} is not defined")
        return found

    def _get(self, name: str) -> Message | Enum | None:
        if name not in self._made and name in self._known:
            scope, proto, file = self._known[name]
            is_proto3 = file.syntax == "proto3"
            if isinstance(proto, DescriptorProto):
                made = self._made[name] = Message(name.lstrip("."), is_map_entry=proto.options.map_entry)
                made.fields = [self._field(one, scope, is_proto3) for one in proto.field]
            else:
                names: dict[int, str] = {}
                for value in proto.value:
                    names.setdefault(value.number, value.name)
                self._made[name] = Enum(names, not is_proto3)
        return self._made.get(name)

    def _field(self, proto: FieldDescriptorProto, scope: str, is_proto3: bool) -> ProtoField:
        kind, of = _TYPE_NAMES.get(proto.type, ""), None
        if proto.type_name:
            of = self._resolve(proto.type_name, scope)
            kind = "enum" if isinstance(of, Enum) else "message" if isinstance(of, Message) else "unknown"
        is_repeated = proto.label == FieldDescriptorProto.LABEL_REPEATED
        oneof = proto.oneof_index if proto.HasField("oneof_index") and not proto.proto3_optional else None
        has_presence = not is_repeated and (kind == "message" or not is_proto3 or oneof is not None or proto.proto3_optional)
        return ProtoField(proto.name, proto.number, kind, of, is_repeated, has_presence, oneof, is_proto3)

    def _resolve(self, name: str, scope: str) -> Message | Enum | None:
        """From the innermost scope outwards."""
        if name.startswith("."):
            return self._get(name)
        while True:
            if (found := self._get(f"{scope}.{name}")) is not None:
                return found
            if not scope:
                return None
            scope = scope.rpartition(".")[0]


@cache
def well_known() -> tuple[FileDescriptorProto, ...]:
    """Google's files that others may import without having them."""
    files = []
    for name in _WELL_KNOWN:
        files.append(file := FileDescriptorProto())
        import_module(f"google.protobuf.{name}_pb2").DESCRIPTOR.CopyToProto(file)
    return tuple(files)


def parse_messages(text: str, references: Iterable[str] = ()) -> Messages:
    """The messages of a source; references: the sources that it takes others from. Raises `SchemaError`."""
    return Messages([parse_proto(one) for one in (*references, text)])


def read_descriptors(data: bytes) -> Messages:
    """The messages of a FileDescriptorSet, as `protoc --descriptor_set_out --include_imports` writes it."""
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(data)
    except DecodeError as error:
        raise SchemaError("expected a FileDescriptorSet, as `protoc --descriptor_set_out` writes it") from error
    if not files.file:
        raise SchemaError("the FileDescriptorSet has no file")
    return Messages(files.file)
