"""How records are written, and the schemas that they name.

    value --(Confluent's wire format: 0, id of 4 bytes)--> the schema of that id --> how to read it, or why it is rejected

A registry never changes what an id stands for, so what is known of a schema stays known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from saker.engine.contract import Contract
from saker.engine.errors import SakerError
from saker.engine.field_tree import Branch, Field, field_tree
from saker.engine.kernels import Values
from saker.engine.kernels.row_kernel import NativeMessages, NativeProgram
from saker.engine.records import rejection as faults
from saker.engine.records.content import Object, Refused, SchemaError
from saker.engine.records.envelope import Envelope
from saker.engine.records.json_text import parse_json, too_deep
from saker.engine.records.rejection import Fault

Kind = Literal["json", "avro", "protobuf"]
KINDS: tuple[Kind, ...] = ("json", "avro", "protobuf")
#: Of Confluent's wire format, before the record.
ID_BYTES = 5
#: How long an id that the registry did not have is not asked for again.
UNKNOWN_SECONDS = 30.0


class UnknownSchema(SakerError):
    """The registry has no schema of this id. name: what messages call it."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as a registry has it, with the texts of those that it refers to in the order of their definition.

    Of Protobuf also from a file: `descriptors` is then a FileDescriptorSet instead of a text, and `message` the name of the
    message that all records are.
    """

    kind: str
    text: str
    references: tuple[str, ...] = ()
    descriptors: bytes = b""
    message: str = ""
    #: How messages call it, where its number is not the registry's.
    name: str = ""


class Schemas(Protocol):
    """Where schemas come from."""

    def get(self, number: int) -> Schema:
        """Raises `UnknownSchema`, and another `SakerError` where the registry does not answer."""

    def number_of(self, guid: bytes) -> int | None:
        """What stands for the schema of a GUID where ids are expected; None if there are too many."""


@dataclass(frozen=True, slots=True)
class Format:
    """With `schemas` each record names its own; with `schema` all are of that one.

    skip_deletes: tombstones and deleted rows are skipped, not rejected.
    """

    kind: Kind = "json"
    schemas: Schemas | None = None
    schema: Schema | None = None
    envelope: Envelope | None = None
    skip_deletes: bool = False

    @property
    def native_number(self) -> int:
        """enum in native/rows/decoder_type.c"""
        return 2 * KINDS.index(self.kind) + (self.schemas is not None)


JSON = Format()


class Records(Protocol):
    """How to read the records of one schema."""

    def read(self, data: bytes) -> Object:
        """Raises `Refused`."""

    def native(self, tree: Branch, entries: dict[int, int]) -> NativeProgram | NativeMessages | bool:
        """The same for the native decoder; False leaves them to the reference. entries: id of a node of `tree` -> number."""


class JsonRecords:
    """With or without a JSON schema, which may show that a field cannot be there."""

    def __init__(self, schema: Schema | None, tree: Branch, deeper: Callable[[bytes, int], int]) -> None:
        """deeper: for `parse_json`."""
        self._deeper = deeper
        if schema is not None and (why := _misfit_of_json(json.loads(schema.text), tree)):
            raise Refused(Fault("schema_mismatch", why[1]), why[0])

    def read(self, data: bytes) -> Object:
        return parse_json(data, self._deeper)

    def native(self, _tree: Branch, _entries: dict[int, int]) -> bool:
        return True


class AvroRecords:
    def __init__(self, schema: Schema, tree: Branch) -> None:
        from saker.engine.records import avro, avro_program

        self._of = avro.parse_schema(schema.text, schema.references)
        if why := avro_program.misfit(self._of, tree):
            raise Refused(Fault("schema_mismatch", why[1]), why[0])

    def read(self, data: bytes) -> Object:
        from saker.engine.records.avro import read_record

        return read_record(data, self._of)

    def native(self, tree: Branch, entries: dict[int, int]) -> NativeProgram | bool:
        from saker.engine.records.avro_program import compile_program, native_form

        try:
            return native_form(compile_program(self._of, tree, entries))
        except SchemaError:  # too large
            return False


class ProtobufRecords:
    """Where records have ids, each says which message of its schema it is, by the path to it in the file."""

    def __init__(self, schema: Schema, tree: Branch, *, has_ids: bool) -> None:
        from saker.engine.records import proto_messages

        self._tree, self._has_ids = tree, has_ids
        if schema.descriptors:
            self._messages = proto_messages.read_descriptors(schema.descriptors)
        else:
            self._messages = proto_messages.parse_messages(schema.text, schema.references)
        self._names = {path: name for path, name in self._messages.paths.items() if has_ids or not schema.message}
        if schema.message:
            self._names = {(): f".{schema.message.lstrip('.')}"}
        elif not has_ids:
            self._names = {(): next(iter(self._names.values()), "")}
        self._known: dict[tuple[int, ...], Any] = {}
        if not has_ids and isinstance(known := self._reader(()), Refused):
            raise known

    def _reader(self, path: tuple[int, ...]) -> Any:
        """A ProtobufReader, or why such records are rejected."""
        from saker.engine.records import protobuf

        if path not in self._known:
            name = self._names.get(path)
            try:
                if name is None:
                    raise Refused(Fault("schema_mismatch", f"has no message at {list(path)}, which its record names"))
                plan = protobuf.plan_of(self._messages.message(name), self._tree)
                self._known[path] = protobuf.ProtobufReader(plan, self._tree)
            except Refused as refused:
                self._known[path] = refused
        return self._known[path]

    def read(self, data: bytes) -> Object:
        path: tuple[int, ...] = ()
        if self._has_ids:
            path, data = _message_path(data)
        reader = self._reader(path)
        if isinstance(reader, Refused):
            raise reader
        record: Object = reader.read(data)
        return record

    def native(self, tree: Branch, entries: dict[int, int]) -> NativeMessages | bool:
        from saker.engine.records import protobuf
        from saker.engine.records.protobuf_tables import native_tables

        made = []
        for path, name in list(self._names.items())[:_MOST_MESSAGES]:
            try:
                made.append((path, native_tables(protobuf.plan_of(self._messages.message(name), tree), tree, entries)))
            except Refused:
                continue
        return tuple(made) or False


_MOST_MESSAGES, _LONGEST_PATH = 64, 8


def _message_path(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """The list of indices before a message (a 0 for the first message of the file), and the message."""
    numbers: list[int] = []
    at = value = shift = 0
    while at < len(data) and shift < 35:  # noqa: PLR2004 - 5 bytes of 7 bits
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:  # noqa: PLR2004
            numbers.append(value >> 1 ^ -(value & 1))
            value = shift = 0
            if not 0 <= numbers[0] <= _LONGEST_PATH:
                break
            if len(numbers) > numbers[0]:
                return tuple(numbers[1:]) or (0,), data[at:]
    raise Refused(faults.NOT_INDEXED)


class FormatReader:
    """Takes records of a format apart, for the reference; knows which schemas it has met."""

    def __init__(self, contract: Contract, of: Format, deeper: Callable[[bytes, int], int] = too_deep) -> None:
        """deeper: for `parse_json`."""
        self._deeper = deeper
        self._format, self._tree = of, field_tree(contract)
        self._known: dict[int, Records | Refused] = {}
        self._unknown_since: dict[int, float] = {}

    def forget_unknown(self) -> list[int]:
        """The ids that the registry did not have a while ago: it may have them now."""
        before = time.monotonic() - UNKNOWN_SECONDS if self._unknown_since else 0.0
        forgotten = [number for number, since in self._unknown_since.items() if since < before]
        for number in forgotten:
            del self._unknown_since[number], self._known[number]
        return forgotten

    def unknown(self, values: Values) -> Sequence[tuple[int, int]]:
        """(index, id) of the records whose schema `learn` has not been called for; an id of 0 where all are of one schema."""
        if self._format.schemas is None:
            return [(0, 0)] if self._format.schema is not None and len(values) and 0 not in self._known else []
        named = ((index, _id_of(values[index] or b"")) for index in range(len(values)))
        return [(index, number) for index, number in named if number is not None and number not in self._known]

    def learn(self, number: int) -> Records | None:
        """How records of the schema are read; None if they are rejected.

        Raises `SakerError` where the registry does not answer.
        """
        known = self._records(number)
        return None if isinstance(known, Refused) else known

    def why_rejected(self, number: int) -> str | None:
        """Why all records of a schema are rejected, None if they are not. Raises as `learn`."""
        known = self._records(number)
        return f"{known.field or 'the records'}: {known.fault.message}" if isinstance(known, Refused) else None

    def _records(self, number: int) -> Records | Refused:
        if number not in self._known:
            try:
                self._known[number] = self._read_schema(number)
            except UnknownSchema as error:
                message = f"{error.name or f'schema {number}'} is not in the registry: does the producer use another one?"
                self._known[number] = Refused(Fault("unknown_schema", message))
                self._unknown_since[number] = time.monotonic()
        return self._known[number]

    def _read_schema(self, number: int) -> Records | Refused:
        of = self._format
        schema = of.schemas.get(number) if of.schemas is not None else of.schema
        name = "the schema" if of.schemas is None or schema is None else schema.name or f"schema {number}"
        if schema is not None and schema.kind != of.kind:
            return Refused(Fault("schema_mismatch", f"{name} is of {schema.kind}, expected {of.kind}"))
        try:
            if schema is None or of.kind == "json":
                return JsonRecords(schema, self._tree, self._deeper)
            if of.kind == "avro":
                return AvroRecords(schema, self._tree)
            return ProtobufRecords(schema, self._tree, has_ids=of.schemas is not None)
        except Refused as refused:
            return Refused(Fault(refused.fault.reason, f"{name}: {refused.fault.message}"), refused.field)
        except (SchemaError, ValueError, RecursionError) as error:
            return Refused(Fault("schema_mismatch", f"{name} cannot be read: {error}"))

    def parse(self, value: bytes) -> Object:
        """The record; raises `Refused`, and `SakerError` where its schema is needed and the registry does not answer."""
        number: int | None = 0
        if self._format.schemas is not None:
            number, value = _id_of(value), value[ID_BYTES:]
            if number is None:
                raise Refused(faults.NOT_FRAMED)
        known = self._records(number or 0)
        if isinstance(known, Refused):
            raise known
        return known.read(value)

    def is_delete(self, value: bytes | None) -> bool:
        """Whether the record says that its row was deleted; asked of records without the row's fields only."""
        envelope = self._format.envelope
        if envelope is None or not value:
            return False
        try:
            return envelope.is_delete(self.parse(value), unset_is_null=self._format.kind == "protobuf")
        except Refused:
            return False


def prefix(number: int) -> bytes:
    """What a record of this schema begins with, in Confluent's wire format."""
    return b"\0" + number.to_bytes(4, "big")


def varint(number: int) -> bytes:
    """As Avro and Protobuf write a number that is not below 0 (Avro doubles it before)."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - 7 bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _id_of(value: bytes) -> int | None:
    return int.from_bytes(value[1:ID_BYTES], "big") if len(value) >= ID_BYTES and not value[0] else None


def _misfit_of_json(schema: Any, node: Branch | Field) -> tuple[str, str] | None:
    """Which field is needed and cannot be there, as far as a JSON schema says so plainly: by a closed list of properties."""
    if isinstance(node, Field) or node.is_array or not isinstance(schema, dict):
        return None
    properties, is_closed = schema.get("properties"), schema.get("additionalProperties") is False
    for name, child in node.children.items():
        if isinstance(properties, dict) and name in properties:
            if why := _misfit_of_json(properties[name], child):
                return why
        elif isinstance(properties, dict) and is_closed:
            fields = [child] if isinstance(child, Field) else child.fields()
            if needed := next((one for one in fields if one.required or one.is_identifier), None):
                return needed.label, "is required and not in the schema"
    return None
