"""The fields that records of a schema have, by their paths: what `saker models describe --schema` and `saker doctor` show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from saker.engine.paths import Path, path_text
from saker.engine.records import avro, proto_messages
from saker.engine.records.content import SchemaError
from saker.engine.records.formats import Schema
from saker.engine.records.protobuf import TIMESTAMP, WRAPPED

#: What a field can be: other is an array, a map, bytes, or a union of several types.
FieldKind = Literal["number", "category", "time", "other"]
_DEEPEST, _MOST = 64, 10_000


@dataclass(frozen=True, slots=True)
class SchemaField:
    """type: its name in the schema. is_optional: whether it may be null or absent. values: those of an enum."""

    path: Path
    kind: FieldKind
    type: str
    is_optional: bool
    values: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return path_text(self.path)


def schema_fields(schema: Schema) -> list[SchemaField]:
    """Every field that is not an object, in the order of the schema. Of a Protobuf source without a `message`, the first one's.

    Raises `SchemaError`.
    """
    if schema.kind == "avro":
        found = _of_avro(avro.parse_schema(schema.text, schema.references), (), False, ())
    elif schema.kind == "protobuf":
        messages = (
            proto_messages.read_descriptors(schema.descriptors)
            if schema.descriptors
            else proto_messages.parse_messages(schema.text, schema.references)
        )
        name = f".{schema.message.lstrip('.')}" if schema.message else next(iter(messages.paths.values()), "")
        found = _of_message(messages.message(name), (), ())
    elif schema.kind == "json":
        try:
            whole = json.loads(schema.text)
        except ValueError as error:
            raise SchemaError(f"expected a JSON schema: {error}") from error
        found = _of_json(whole, whole, (), False)
    else:
        raise SchemaError(f"expected a schema of Avro, Protobuf or JSON, got one of {schema.kind}")
    fields = [field for field, _ in zip(found, range(_MOST), strict=False) if field.path]
    if not fields:
        raise SchemaError("the schema has no fields; expected a record")
    return fields


def _of_avro(of: avro.Type, path: Path, optional: bool, above: tuple[avro.Type, ...]) -> Iterator[SchemaField]:
    kind: FieldKind = "other"
    if of.kind == "union":
        branches = [branch for branch in of.inner if branch.kind != "null"]
        may_be_null = optional or len(branches) < len(of.inner)
        if len(branches) == 1:
            yield from _of_avro(branches[0], path, may_be_null, above)
        else:
            yield SchemaField(path, "other", f"union of {', '.join(branch.kind for branch in branches)}", may_be_null)
        return
    if of.kind == "record":
        if of not in above and len(path) < _DEEPEST:  # what contains itself has no end
            for name, inner in of.fields:
                yield from _of_avro(inner, (*path, name), optional, (*above, of))
        return
    if of.logical in avro.MOMENTS or of.logical == "date":
        kind = "time"
    elif of.logical == "decimal" or of.kind in ("boolean", "int", "long", "float", "double"):
        kind = "number"
    elif of.kind in ("string", "enum"):
        kind = "category"
    yield SchemaField(path, kind, of.logical or of.kind, optional, of.symbols)


_NUMBERS = {
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64",
    "bool",
}  # fmt: skip


def _of_message(
    message: proto_messages.Message, path: Path, above: tuple[proto_messages.Message, ...]
) -> Iterator[SchemaField]:
    for one in message.fields:
        here, of = (*path, one.name), one.type
        if isinstance(of, proto_messages.Message) and not one.is_repeated:
            if of.name == TIMESTAMP:
                yield SchemaField(here, "time", "Timestamp", True)
            elif of.name in WRAPPED:
                yield SchemaField(here, _scalar(WRAPPED[of.name]), WRAPPED[of.name], True)
            elif of not in (*above, message) and len(here) < _DEEPEST:
                inside = _of_message(of, here, (*above, message))
                yield from (replace(field, is_optional=True) for field in inside)
        elif one.is_repeated:
            is_map = isinstance(of, proto_messages.Message) and of.is_map_entry
            yield SchemaField(here, "other", "map" if is_map else f"repeated {one.kind}", True)
        else:
            values = tuple(of.names.values()) if isinstance(of, proto_messages.Enum) else ()
            yield SchemaField(here, _scalar(one.kind), one.kind, one.has_presence, values)


def _scalar(kind: str) -> FieldKind:
    return "number" if kind in _NUMBERS else "category" if kind in ("string", "enum") else "other"


_JSON_KINDS: dict[str, FieldKind] = {"number": "number", "integer": "number", "boolean": "number", "string": "category"}


def _of_json(schema: Any, whole: Any, path: Path, optional: bool) -> Iterator[SchemaField]:
    for _ in range(_DEEPEST):
        if not (isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str) and reference.startswith("#/")):
            break
        schema = _at(whole, reference)
    if not isinstance(schema, dict) or len(path) >= _DEEPEST:
        return
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    optional = optional or "null" in types
    properties = schema.get("properties")
    if isinstance(properties, dict):
        required = schema.get("required")
        needed = required if isinstance(required, list) else []
        for name, inner in properties.items():
            yield from _of_json(inner, whole, (*path, name), optional or name not in needed)
        return
    if not path:
        return
    kinds = [one for one in types if one != "null"]
    values = schema.get("enum")
    symbols = tuple(one for one in values if isinstance(one, str)) if isinstance(values, list) else ()
    kind = _JSON_KINDS.get(str(kinds[0]), "other") if len(kinds) == 1 else "category" if symbols else "other"
    if kind == "category" and schema.get("format") in ("date-time", "date"):
        kind = "time"
    yield SchemaField(path, kind, str(schema.get("format") or ", ".join(map(str, kinds)) or "enum"), optional, symbols)


def _at(whole: Any, reference: str) -> Any:
    for step in reference[2:].split("/"):
        whole = whole.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(whole, dict) else None
    return whole
