"""How records are written, and the schemas that they name.

    value --(Confluent's wire format: 0, id of 4 bytes)--> the schema of that id --> how to read it, or why it is rejected

A registry never changes what an id stands for, so what is known of a schema stays known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from saker.engine.contract import Contract
from saker.engine.errors import SakerError
from saker.engine.field_tree import Branch, Field, field_tree
from saker.engine.kernels import Values
from saker.engine.records import rejection as faults
from saker.engine.records.avro import Type, parse_schema, read_record
from saker.engine.records.avro_program import misfit
from saker.engine.records.content import Object, Refused, SchemaError
from saker.engine.records.json_text import parse_json
from saker.engine.records.rejection import Fault

Kind = Literal["json", "avro"]
#: Of Confluent's wire format, before the record.
ID_BYTES = 5
#: How long an id that the registry did not have is not asked for again.
UNKNOWN_SECONDS = 30.0


class UnknownSchema(SakerError):
    """The registry has no schema of this id."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as a registry has it, with the texts of those that it refers to in the order of their definition."""

    kind: str
    text: str
    references: tuple[str, ...] = ()


class Schemas(Protocol):
    """Where schemas come from."""

    def get(self, number: int) -> Schema:
        """Raises `UnknownSchema`, and another `SakerError` where the registry does not answer."""


@dataclass(frozen=True, slots=True)
class Format:
    """json or avro. With `schemas` each record names its own; with `schema` all are of that one."""

    kind: Kind = "json"
    schemas: Schemas | None = None
    schema: Schema | None = None

    @property
    def native_number(self) -> int:
        """enum in native/rows/decoder_type.c"""
        return 2 * (self.kind == "avro") + (self.schemas is not None)


JSON = Format()


class FormatReader:
    """Takes records of a format apart, for the reference; knows which schemas it has met."""

    def __init__(self, contract: Contract, of: Format) -> None:
        self._format, self._tree = of, field_tree(contract)
        self._known: dict[int, Type | Refused | None] = {}
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

    def learn(self, number: int) -> Type | bool:
        """What the schema says of Avro, True of JSON; False if records of the schema are rejected.

        Raises `SakerError` where the registry does not answer.
        """
        if number not in self._known:
            try:
                self._known[number] = self._learned(number)
            except UnknownSchema:
                message = f"schema {number} is not in the registry: does the producer use another one?"
                self._known[number] = Refused(Fault("unknown_schema", message))
                self._unknown_since[number] = time.monotonic()
        known = self._known[number]
        return known if isinstance(known, Type) else known is None

    def _learned(self, number: int) -> Type | Refused | None:
        schemas, schema = self._format.schemas, self._format.schema
        schema = schemas.get(number) if schemas is not None else schema
        name = f"schema {number}" if schemas is not None else "the schema"
        if schema is None:
            return None
        if schema.kind != self._format.kind:
            return Refused(Fault("schema_mismatch", f"{name} is of {schema.kind}, expected {self._format.kind}"))
        try:
            of = parse_schema(schema.text, schema.references) if schema.kind == "avro" else None
            why = misfit(of, self._tree) if of is not None else _misfit_of_json(json.loads(schema.text), self._tree)
        except (SchemaError, ValueError, RecursionError) as error:
            return Refused(Fault("schema_mismatch", f"{name} cannot be read: {error}"))
        return of if why is None else Refused(Fault("schema_mismatch", f"{name}: {why[1]}"), why[0])

    def parse(self, value: bytes) -> Object:
        """The record; raises `Refused`, and `SakerError` where its schema is needed and the registry does not answer."""
        number = 0
        if self._format.schemas is not None:
            found = _id_of(value)
            if found is None:
                raise Refused(faults.NOT_FRAMED)
            number, value = found, value[ID_BYTES:]
        if self._format.schemas is None and self._format.schema is None:
            return parse_json(value)
        self.learn(number)
        known = self._known[number]
        if isinstance(known, Refused):
            raise known
        return parse_json(value) if known is None else read_record(value, known)


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
