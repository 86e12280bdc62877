"""Rows of tables as Avro records: for `saker replay --format avro`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import fastavro
import pandas as pd
import pyarrow as pa
from pyarrow import compute

from saker.engine.records.formats import prefix
from saker.training.tables import TEXT, TableError, looks_numeric

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DAY_ONE = date(1970, 1, 1)


class AvroRows:
    """Writes rows by one schema, after Confluent's prefix where the schema has an id."""

    def __init__(self, schema: str, schema_id: int | None = None) -> None:
        """Raises `TableError` for a text that is no schema of a record."""
        try:
            self._schema = fastavro.parse_schema(json.loads(schema))
            self._of = fastavro.schema.expand_schema(json.loads(schema))
        except Exception as error:  # fastavro raises whatever there is
            raise TableError(f"the Avro schema cannot be read: {type(error).__name__}: {error}") from error
        if not (isinstance(self._of, dict) and self._of.get("type") == "record"):
            raise TableError("expected an Avro schema of a record")
        self._prefix = b"" if schema_id is None else prefix(schema_id)

    def write(self, row: dict[str, Any]) -> bytes:
        """Raises `TableError` for a row that does not fit, with the field."""
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self._schema, _fit(row, self._of, ""))
        except _Misfit as error:
            raise TableError(str(error)) from None
        except Exception as error:
            raise TableError(f"it does not fit the Avro schema: {type(error).__name__}: {error}") from error
        return self._prefix + out.getvalue()

    def framed(self, record: bytes) -> bytes:
        """A record that is written already."""
        return self._prefix + record


class _Misfit(Exception):
    """Which field, and why."""


def _fit(value: Any, of: Any, field: str) -> Any:
    """The value as fastavro writes it by a type; text of a CSV file becomes what the type asks for."""
    if isinstance(of, list):
        if value is None and "null" in of:
            return None
        choices = [one for one in of if one != "null"]
        if len(choices) != 1:
            return value
        of = choices[0]
    kind, logical = (of.get("type"), of.get("logicalType")) if isinstance(of, dict) else (of, None)
    if value is None:
        return None
    try:
        return _as_type(value, of, str(kind), logical, field)
    except (ValueError, TypeError, KeyError, InvalidOperation):
        raise _Misfit(f"field {field}: expected {logical or kind}, got {str(value)[:40]!r}") from None


def _as_type(value: Any, of: Any, kind: str, logical: str | None, field: str) -> Any:
    if kind == "record":
        inner = f"{field}." if field else ""
        given = {one["name"]: value.get(one["name"], one.get("default", _ABSENT)) for one in of["fields"]}
        types = {one["name"]: one["type"] for one in of["fields"]}
        return {name: _fit(one, types[name], inner + name) for name, one in given.items() if one is not _ABSENT}
    if kind == "array":
        return [_fit(one, of["items"], f"{field}[{at}]") for at, one in enumerate(value)]
    if kind == "map":
        return {str(name): _fit(one, of["values"], f"{field}.{name}") for name, one in value.items()}
    if logical == "decimal":
        return Decimal(str(value)).quantize(Decimal(1).scaleb(-of.get("scale", 0)))
    convert = _CONVERSIONS.get(logical or kind) or _CONVERSIONS.get(kind)
    return convert(value) if convert is not None else value


_ABSENT = object()


def _moment(value: Any) -> Any:
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _whole(value)


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)  # exact beyond 2**53, too


def _boolean(value: Any) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]


def _bytes(value: Any) -> Any:
    """Avro writes bytes as JSON by the code points of Latin-1."""
    return value.encode("latin-1") if isinstance(value, str) else value


def _day(value: Any) -> Any:
    return (date.fromisoformat(value) - _DAY_ONE).days if isinstance(value, str) else _whole(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "timestamp-millis": _moment, "timestamp-micros": _moment, "date": _day, "int": _whole, "long": _whole, "float": float,
    "double": float, "boolean": _boolean, "string": str, "enum": str,
    "bytes": _bytes, "fixed": _bytes,
}  # fmt: skip


def typed(table: pd.DataFrame) -> pa.Table:
    """Columns of text as the numbers that training takes them for; other columns as they are."""
    columns = {}
    for name in table.columns:
        column = pa.array(table[name], from_pandas=True)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if table[name].dtype == TEXT and _is_numeric(column, str(name)):
            column = compute.cast(column, pa.float64())
            whole = compute.cast(column, pa.int64(), safe=False)
            if compute.all(compute.equal(column, compute.cast(whole, pa.float64(), safe=False))).as_py() is not False:
                column = whole
        columns[str(name)] = column
    return pa.table(columns)


def _is_numeric(column: Any, name: str) -> bool:
    try:
        return looks_numeric(column, name)
    except TableError:  # of numbers in another spelling: sent as they are
        return False


def schema_of(columns: pa.Schema, name: str) -> str:
    """An Avro schema for rows of these columns, each of which may be null. Raises `TableError` for other names than Avro's."""
    return json.dumps(_record(columns, name), indent=2)


def _record(columns: Iterable[pa.Field], name: str) -> dict[str, Any]:
    fields = []
    for one in columns:
        if not _NAME.fullmatch(one.name):
            raise TableError(f"column {one.name!r}: names in Avro consist of letters, digits and underscores; rename it")
        fields.append({"name": one.name, "type": ["null", _type(one.type, f"{name}_{one.name}")], "default": None})
    return {"type": "record", "name": name, "fields": fields}


def _type(of: pa.DataType, name: str) -> Any:
    is_a = pa.types
    made: dict[Callable[[Any], bool], Callable[[], Any]] = {
        is_a.is_struct: lambda: _record(list(of), name),
        is_a.is_list: lambda: {"type": "array", "items": ["null", _type(of.value_type, name)]},
        is_a.is_map: lambda: {"type": "map", "values": ["null", _type(of.item_type, name)]},
        is_a.is_decimal: lambda: {"type": "bytes", "logicalType": "decimal", "precision": of.precision, "scale": of.scale},
        is_a.is_timestamp: lambda: {"type": "long", "logicalType": "timestamp-micros"},
        is_a.is_date: lambda: {"type": "int", "logicalType": "date"},
        is_a.is_boolean: lambda: "boolean",
        is_a.is_integer: lambda: "long",
        is_a.is_floating: lambda: "double",
    }
    return next((make() for matches, make in made.items() if matches(of)), "string")
