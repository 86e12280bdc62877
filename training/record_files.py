"""Files of records with a schema of their fields: Parquet, Avro containers, JSON lines.

    file.avro ----> records: the bytes of each; table: a column per field, named by its path
    file.parquet -> records: JSON, nested as the columns are; table
    JSON lines ---> records: the lines; table

The decoder that serves makes the matrix of the records. The table only says what there is to learn from.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import compute

from saker.engine.paths import Path as FieldPath
from saker.engine.paths import find, parse_path, path_text
from saker.engine.records.content import SchemaError
from saker.engine.records.formats import JSON, Format, Schema
from saker.engine.records.schema_fields import SchemaField, schema_fields
from saker.training.tables import TableError

_AVRO = b"Obj\x01"
_ROWS = 10_000
#: Of rows whose columns are named by paths.
_BY_PATH = {b"saker": b"paths"}


@dataclass(frozen=True, slots=True)
class RecordFile:
    """`records` as a producer sends them, in `format`; rows: their values, or what makes them of records.

    as_json: a record -> the same as JSON, for contracts, whose golden records are text.
    """

    records: list[bytes]
    format: Format
    rows: pa.Table | Callable[[Sequence[bytes]], pa.Table]
    as_json: Callable[[bytes], bytes] = bytes

    def chosen(self, rows: NDArray[Any]) -> RecordFile:
        """rows: a mask (n,), or indices in the order that is wanted."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        kept = self.rows.take(at) if isinstance(self.rows, pa.Table) else self.rows
        return replace(self, records=[self.records[one] for one in at.tolist()], rows=kept)

    @property
    def schema(self) -> pa.Schema:
        """Of the rows."""
        return self._values().schema

    def table(self) -> pd.DataFrame:
        """The fields to learn from, a column each, named by their paths."""
        fields = {name: column for name, column in self._fields() if not _is_opaque(column.type)}
        return pa.table(fields).to_pandas(types_mapper=pd.ArrowDtype)

    def opaque(self) -> list[str]:
        """The other fields: arrays, maps, bytes, unions of several types, and those without any value."""
        return [name for name, column in self._fields() if _is_opaque(column.type)]

    def _values(self) -> pa.Table:
        return self.rows if isinstance(self.rows, pa.Table) else self.rows(self.records)

    def _fields(self) -> Iterator[tuple[str, pa.ChunkedArray]]:
        rows = self._values()
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            path: FieldPath = parse_path(name) if rows.schema.metadata == _BY_PATH else (name,)
            yield from _fields(path, column)


def read_records(path: Path, id_field: str, without: str = "") -> RecordFile:
    """A Parquet file, perhaps without a column, or an Avro container; raises `TableError`.

    The rows of a Parquet file are numbered in `id_field` when it has no such column, as those of a CSV file are.
    """
    with path.open("rb") as file:
        is_avro = file.read(len(_AVRO)) == _AVRO
    return _read_avro(path) if is_avro else _read_parquet(path, id_field, without)


def of_json(records: Sequence[bytes], path: Path) -> RecordFile:
    """Lines of `path`, each a JSON object; raises `TableError` for another, with its number."""
    values = []
    for number, record in enumerate(records, 1):
        try:
            value = orjson.loads(record)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise TableError(f"{path}: expected a JSON object in each line, got another text in line {number}")
        values.append(value)
    return RecordFile(list(records), JSON, _whole([_struct(values, path)] if values else [], path))


# ---- Avro ----


def _read_avro(path: Path) -> RecordFile:
    records = list(_avro_records(path))
    schema = Schema("avro", _avro_schema(path))
    try:
        of, fields = fastavro.parse_schema(json.loads(schema.text)), schema_fields(schema)
    except SchemaError as error:
        raise TableError(f"{path}: expected records, got others: {error}") from error
    if not records:
        raise TableError(f"{path}: there are no records in it")

    def read(record: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(record), of, None)

    def rows(records: Sequence[bytes]) -> pa.Table:
        values = [read(record) for record in records]
        return pa.table([_column(one, values) for one in fields], [one.label for one in fields], metadata=_BY_PATH)

    return RecordFile(records, Format("avro", schema=schema), rows, lambda record: json_of(read(record)))


def _column(of: SchemaField, values: list[Any]) -> pa.Array:
    if of.kind == "other":
        return pa.nulls(len(values))
    found = [find(value, of.path) for value in values]
    return pa.array([float(one) if isinstance(one, Decimal) else one for one in found])


def _avro_schema(path: Path) -> str:
    with path.open("rb") as file:
        try:
            return str(fastavro.block_reader(file).metadata["avro.schema"])
        except Exception as error:  # of a damaged file fastavro raises whatever there is
            raise TableError(f"{path}: the Avro container is damaged ({_reason(error)})") from error


def _avro_records(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        try:
            blocks = fastavro.block_reader(file)
            schema = fastavro.parse_schema(blocks.writer_schema)
            for block in blocks:
                data: bytes = block.bytes_.getvalue()  # type: ignore[attr-defined]  # which its types leave out
                stream = io.BytesIO(data)
                for _ in range(block.num_records):
                    start = stream.tell()
                    fastavro.schemaless_reader(stream, schema, None)
                    yield data[start : stream.tell()]
        except Exception as error:
            raise TableError(f"{path}: the Avro container is damaged ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# ---- Parquet ----


def _read_parquet(path: Path, id_field: str, without: str) -> RecordFile:
    parts = [part.drop_columns([without]) if without in part.column_names else part for part in _parquet_parts(path)]
    if parts and parse_path(id_field)[0] not in parts[0].column_names:
        starts = itertools.accumulate((part.num_rows for part in parts), initial=0)
        numbers = [pa.array(range(start, start + part.num_rows)) for start, part in zip(starts, parts, strict=False)]
        parts = [part.add_column(0, id_field, [number]) for part, number in zip(parts, numbers, strict=True)]
    records = [json_of(row) for part in parts for row in part.to_pylist(maps_as_pydicts="lossy")]
    return RecordFile(records, JSON, _whole(parts, path))


def _parquet_parts(path: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                yield _in_microseconds(pa.Table.from_batches([batch]))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: the Parquet file is damaged ({error})") from error


def _in_microseconds(part: pa.Table) -> pa.Table:
    """Python has no nanoseconds, and pyarrow makes objects of pandas of them."""
    for place, one in enumerate(part.schema):
        if pa.types.is_timestamp(one.type) and one.type.unit == "ns":
            moved = compute.cast(part.column(place), pa.timestamp("us", one.type.tz), safe=False)
            part = part.set_column(place, one.name, moved)
    return part


# ---- both ----


def json_of(value: Any) -> bytes:
    """A row as JSON: decimals are numbers, times ISO 8601, bytes null."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value).encode()) if value.is_finite() else None
    return None if isinstance(value, bytes | timedelta) else str(value)


def _struct(values: list[dict[str, Any]], path: Path) -> pa.Table:
    try:
        return pa.Table.from_struct_array(pa.array(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise TableError(f"{path}: expected values of one type in each field: {error}") from error


def _whole(parts: list[pa.Table], path: Path) -> pa.Table:
    if not sum(part.num_rows for part in parts):
        raise TableError(f"{path}: there are no records in it")
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: expected values of one type in each field: {error}") from error


def _fields(path: FieldPath, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    of = column.type
    if pa.types.is_struct(of):
        for field, inner in zip(of, column.flatten(), strict=True):
            yield from _fields((*path, field.name), inner)
    elif pa.types.is_dictionary(of):
        yield path_text(path), compute.cast(column, of.value_type)
    elif pa.types.is_decimal(of):
        yield path_text(path), compute.cast(column, pa.float64())
    else:
        yield path_text(path), column


def _is_opaque(of: pa.DataType) -> bool:
    is_bytes = pa.types.is_binary(of) or pa.types.is_large_binary(of) or pa.types.is_fixed_size_binary(of)
    return bool(pa.types.is_nested(of) or is_bytes or pa.types.is_null(of))
