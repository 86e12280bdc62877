"""Avro: what a schema says, and the reference reader of single records.

Stricter than fastavro where a record is damaged or hostile: every byte must belong to the schema, a length never exceeds the
bytes that are left, and nothing nests deeper than MAX_DEPTH. Whatever is valid reads as fastavro reads it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

from saker.engine.records import rejection as faults
from saker.engine.records.content import Map, Number, Object, Refused, SchemaError, Time
from saker.engine.records.rejection import MAX_DEPTH

PRIMITIVE = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
#: Logical type of an int or long that is a moment -> how many of it make a second; of a date, how many seconds it has.
MOMENTS = {
    f"{prefix}timestamp-{unit}": per_second
    for prefix in ("", "local-")
    for unit, per_second in (("millis", 1e3), ("micros", 1e6), ("nanos", 1e9))
}
SECONDS_A_DAY = 86_400
#: Most types in a schema, and most nesting of their definitions.
MAX_TYPES, MAX_NESTING = 20_000, 200
#: Of a decimal: digits, and bytes that are read.
MAX_PRECISION, MAX_DECIMAL_BYTES = 200, 64
_DECIMALS = Context(prec=1_000_000)


@dataclass(slots=True, eq=False)
class Type:
    """kind: a primitive type, fixed, enum, record, array, map or union. The other attributes belong to some kinds only."""

    kind: str
    name: str = ""
    fields: list[tuple[str, Type]] = field(default_factory=list)
    #: Of an array or a map one type, of a union its branches.
    inner: list[Type] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    size: int = 0
    #: decimal, one of MOMENTS, date, or nothing.
    logical: str = ""
    scale: int = 0

    _is_empty: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether its values have no bytes, so that any number of them may be claimed to be there. They are read as null."""
        if self._is_empty is None:
            self._is_empty = False  # what contains itself is not
            self._is_empty = (
                self.kind == "null"
                or (self.kind == "fixed" and self.size == 0)
                or (self.kind == "record" and all(inner.is_empty for _, inner in self.fields))
            )
        return self._is_empty


class _Parser:
    def __init__(self, names: dict[str, Type]) -> None:
        self.names, self.count = names, 0

    def parse(self, schema: Any, namespace: str, depth: int) -> Type:
        self.count += 1
        if self.count > MAX_TYPES or depth > MAX_NESTING:
            raise SchemaError(f"expected at most {MAX_TYPES:,} types that nest at most {MAX_NESTING} deep, got more")
        if isinstance(schema, list):
            branches = [self.parse(branch, namespace, depth + 1) for branch in schema]
            if not branches or any(branch.kind == "union" for branch in branches):
                raise SchemaError("expected a union of types other than unions, got an empty one, or one with a union")
            return Type("union", inner=branches)
        if isinstance(schema, str):
            if schema in PRIMITIVE:
                return Type(schema)
            name = schema if "." in schema or not namespace else f"{namespace}.{schema}"
            known = self.names.get(name) or self.names.get(schema)
            if known is None:
                raise SchemaError(f"type {schema!r} is not defined")
            return known
        if not isinstance(schema, dict) or "type" not in schema:
            raise SchemaError(f"expected a type, got {str(schema)[:100]}")
        return self._complex(schema, namespace, depth)

    def _complex(self, schema: dict[str, Any], namespace: str, depth: int) -> Type:
        kind = schema["type"]
        if kind in ("record", "error", "enum", "fixed"):
            return self._named("record" if kind == "error" else kind, schema, namespace, depth)
        if kind in ("array", "map"):
            key = "items" if kind == "array" else "values"
            if key not in schema:
                raise SchemaError(f"an {kind} has no {key}".replace("an map", "a map"))
            return Type(kind, inner=[self.parse(schema[key], namespace, depth + 1)])
        inner = self.parse(kind, namespace, depth + 1)
        return _logical(inner, schema) if inner.kind in PRIMITIVE else inner

    def _named(self, kind: str, schema: dict[str, Any], namespace: str, depth: int) -> Type:
        name, space = schema.get("name"), schema.get("namespace") or namespace
        if not isinstance(name, str) or not name or not isinstance(space, str):
            raise SchemaError(f"expected a {kind} with a name, got {str(schema)[:100]}")
        if "." in name:
            space = name.rpartition(".")[0]
        elif space:
            name = f"{space}.{name}"
        if name in self.names:
            raise SchemaError(f"type {name!r} is defined twice")
        found = self.names[name] = Type(kind, name)
        if kind == "enum":
            symbols = schema.get("symbols")
            if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
                raise SchemaError(f"enum {name!r} has no list of symbols")
            found.symbols = tuple(symbols)
        elif kind == "fixed":
            size = schema.get("size")
            if type(size) is not int or not 0 <= size < 2**31:
                raise SchemaError(f"fixed {name!r} has no size")
            found.size = size
            _logical(found, schema)
        else:
            found.fields = self._fields(name, schema.get("fields"), space, depth)
        return found

    def _fields(self, record: str, fields: Any, namespace: str, depth: int) -> list[tuple[str, Type]]:
        found: dict[str, Type] = {}
        for one in fields if isinstance(fields, list) else [None]:
            if not isinstance(one, dict) or not isinstance(one.get("name"), str) or "type" not in one:
                raise SchemaError(f"expected fields with a name and a type in record {record!r}, got {str(one)[:100]}")
            if one["name"] in found:
                raise SchemaError(f"record {record!r} has field {one['name']!r} twice")
            found[one["name"]] = self.parse(one["type"], namespace, depth + 1)
        return list(found.items())


def _logical(of: Type, schema: dict[str, Any]) -> Type:
    """`of` with the logical type that its schema names, if it is one that fits; Avro says to ignore others."""
    logical = schema.get("logicalType")
    if logical == "decimal" and of.kind in ("bytes", "fixed"):
        scale, precision = schema.get("scale", 0), schema.get("precision")
        if type(scale) is int and type(precision) is int and 0 <= scale <= precision <= MAX_PRECISION:
            of.logical, of.scale = "decimal", scale
    elif (logical == "date" and of.kind == "int") or (logical in MOMENTS and of.kind == "long"):
        of.logical = str(logical)
    return of


def parse_schema(text: str, references: tuple[str, ...] = ()) -> Type:
    """The type that a schema in JSON describes. references: schemas of the types that it takes from elsewhere, in the order of
    their definition. Raises `SchemaError`.
    """
    parser = _Parser({})
    try:
        for reference in references:
            parser.parse(_json(reference), "", 0)
        return parser.parse(_json(text), "", 0)
    except RecursionError:
        raise SchemaError("the schema nests too deeply") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text in PRIMITIVE:
            return text
        raise SchemaError("expected a schema in JSON") from None


class _Reader:
    """Reads values one after the other; raises `Refused`."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise Refused(faults.NOT_AVRO)
        self.at += count
        return self.data[self.at - count : self.at]

    def long(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                break
        else:
            raise Refused(faults.NOT_AVRO)
        if value >= 2**64:
            raise Refused(faults.NOT_AVRO)
        return value >> 1 ^ -(value & 1)

    def text(self) -> str:
        return self.take(self.long()).decode("utf-8", "surrogateescape")

    def value(self, of: Type, depth: int) -> Any:  # noqa: PLR0911 - one case for each type
        if of.is_empty:
            return None
        match of.kind:
            case "boolean":
                return self.take(1) != b"\0"
            case "int" | "long":
                return _whole(self.long(), of)
            case "float":
                return struct.unpack("<f", self.take(4))[0]
            case "double":
                return struct.unpack("<d", self.take(8))[0]
            case "string":
                return self.text()
            case "bytes" | "fixed":
                data = self.take(of.size if of.kind == "fixed" else self.long())
                return _decimal(data, of.scale) if of.logical == "decimal" else data
            case "enum":
                return _choose(of.symbols, self.long())
            case "union":
                return self.value(_choose(of.inner, self.long()), depth)
        if depth >= MAX_DEPTH:
            raise Refused(faults.TOO_DEEP)
        if of.kind == "record":
            return Object((name, self.value(inner, depth + 1)) for name, inner in of.fields)
        return self.blocks(of, depth + 1)

    def blocks(self, of: Type, depth: int) -> Any:
        """An array or a map."""
        values: list[Any] = []
        (inner,) = of.inner
        is_map = of.kind == "map"
        while count := self.long():
            if count < 0:
                self.long()  # the block's size
            if not is_map and inner.is_empty:
                continue
            if abs(count) > self.left:  # each has a byte at least
                raise Refused(faults.NOT_AVRO)
            if is_map:
                values += [(self.text(), self.value(inner, depth)) for _ in range(abs(count))]
            else:
                values += [self.value(inner, depth) for _ in range(abs(count))]
        return Map(values) if is_map else values


def _whole(value: int, of: Type) -> Number:
    if not of.logical:
        return Number(value)
    return Time(value, value * SECONDS_A_DAY if of.logical == "date" else value / MOMENTS[of.logical])


def _decimal(data: bytes, scale: int) -> Number | float:
    if len(data) > MAX_DECIMAL_BYTES:
        return float("inf")  # nothing that a number should be: out of range
    unscaled = int.from_bytes(data, "big", signed=True)
    return Number(format(Decimal(unscaled).scaleb(-scale, _DECIMALS), "f"))


def _choose(choices: Any, index: int) -> Any:
    if not 0 <= index < len(choices):
        raise Refused(faults.NOT_AVRO)
    return choices[index]


def read_record(data: bytes, of: Type) -> Object:
    """The record that `data` is; raises `Refused`."""
    reader = _Reader(data)
    record = reader.value(of, 0)
    if reader.left or not isinstance(record, Object):
        raise Refused(faults.NOT_AVRO)
    return record
