"""Raw records from files, as commands take them; without the label."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.engine.records.formats import Format, Schema
    from saker.training.fit import Settings
    from saker.training.record_files import RecordFile

Table = Any  # of pandas, which takes half a second to import
Window = tuple[float | None, float | None]
#: Key and value of a record.
Pair = tuple[bytes | None, bytes | None]


class FileRecords(NamedTuple):
    """values: in `of`. columns: the pyarrow.Schema of their fields. as_json: a value as JSON."""

    values: list[bytes]
    of: Format
    columns: Callable[[], Any]
    as_json: Callable[[bytes], bytes] = bytes


def file_records(file: Path, id_field: str, label: str, missing: Collection[str] = ()) -> FileRecords:
    """Raw records of a CSV file, a Parquet file, an Avro container, or a file with one JSON object per line; without the label.

    CSV and JSON lines may be gzipped. A line, and a record of Avro, is taken as it stands, byte for byte, but for a label in a
    line. missing: what means missing in a CSV file.
    """
    from saker.engine.records.formats import JSON

    if is_table(file):
        from saker.training import tables

        table = tables.read_csv(file, id_field, missing).drop(columns=[label], errors="ignore")
        return FileRecords(tables.to_records(table), JSON, lambda: _columns(table))
    if not _has_schema(file):
        kept = [_without(label, line) for line in lines(file)]
        return FileRecords(kept, JSON, lambda: _of_json(kept, file).schema)
    from saker.training.record_files import read_records

    read = read_records(file, id_field, without=label)
    return FileRecords(read.records, read.format, lambda: read.schema, lambda record: _without(label, read.as_json(record)))


def _columns(table: Table) -> Any:
    from saker.training import avro_rows

    return avro_rows.typed(table).schema


def _of_json(records: list[bytes], file: Path) -> RecordFile:
    from saker.training.record_files import of_json

    return of_json(records, file)


def _has_schema(file: Path) -> bool:
    """Whether it is a Parquet file or an Avro container, by its first bytes."""
    with suppress(OSError), file.open("rb") as opened:
        return opened.read(4) in (b"PAR1", b"Obj\x01")
    return False


def is_table(file: Path) -> bool:
    """Whether the name of a file is that of a CSV file."""
    return bool({".csv", ".tsv"} & {suffix.lower() for suffix in file.suffixes[-2:]})


def read_table(data: Path, id_field: str, missing: Collection[str] = ()) -> tuple[Table, RecordFile | None]:
    """A column per field; and, but for a CSV file and a folder with the IEEE-CIS files, the records themselves."""
    from saker.training import ieee_cis, tables

    if data.is_dir():
        return ieee_cis.read(data), None
    if is_table(data) or not data.is_file():
        return tables.read_csv(data, id_field, missing), None
    from saker.training.record_files import read_records

    read = read_records(data, id_field) if _has_schema(data) else _of_json(lines(data), data)
    return read.table(), read


def labelled_table(
    data: Path | None, generate: int, seed: int, settings: Settings, window: Window
) -> tuple[Table, RecordFile | None, dict[str, str]]:
    """What to train on (`read_table`), and where it is from. window: start <= time < end in seconds, None where it is open."""
    from saker.training import synthetic, tables

    start, end = window
    asked = {name: str(value) for name, value in (("from", start), ("until", end)) if value is not None}
    if data is None:
        if end is None:
            table = synthetic.frame(generate, seed)
            chosen = table if start is None else table[table[settings.time] >= start]
            return chosen, None, {"generate": str(generate), **asked}
        first, count = synthetic.between(start or 0.0, end)
        if not count:
            raise SakerError(f"no generated transaction has {settings.time} from {start or 0:g} until {end:g}")
        return synthetic.frame(count, seed, first), None, {"generate": str(count), **asked}
    table, records = read_table(data, settings.id_field, settings.missing)
    if asked:
        times = tables.seconds(table, settings.time, "--time", settings.time_unit)
        whole = f"{times.min():g} to {times.max():g}"
        kept = (times >= (float("-inf") if start is None else start)) & (times < (float("inf") if end is None else end))
        table = table[kept]
        if records is not None:
            records = records.chosen(kept)
        if table.empty:
            raise SakerError(f"{data}: no row has {settings.time} from {start} until {end}; the file has {whole}")
    return table, records, {"data": str(data), **asked}


def folder_records(folder: Path, part: str, label: str, key: str) -> Iterator[Pair]:
    """The IEEE-CIS files, joined and typed as in training, as (key, record); without the label."""
    from saker.engine.kafka import replay
    from saker.training import ieee_cis, tables

    for frame in ieee_cis.frames(folder, part):
        yield from replay.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)


def in_format(
    pairs: Iterable[Pair], schema: Schema, schema_id: int | None, written: list[bytes] | None = None
) -> Iterator[Pair]:
    """(key, record as JSON) pairs as Avro or Protobuf. written: the records as Avro of the schema, where they are already."""
    from saker.training.avro_rows import AvroRows
    from saker.training.protobuf_rows import ProtobufRows
    from saker.training.tables import TableError

    rows = AvroRows(schema.text, schema_id) if schema.kind == "avro" else ProtobufRows(schema, schema_id)
    for number, (key, record) in enumerate(pairs):
        if written is not None and isinstance(rows, AvroRows):
            yield key, rows.framed(written[number])
            continue
        try:
            yield key, rows.write(json.loads(record or b"null"))
        except (ValueError, TableError) as error:
            raise SakerError(f"row {number + 1}: {error}") from error


def generated_columns(data: Path | None, part: str, label: str) -> Any:
    """The pyarrow.Schema of `folder_records` or of `generated`."""
    from saker.training import ieee_cis, synthetic

    frame = synthetic.frame(100) if data is None else next(ieee_cis.frames(data, part))
    return _columns(frame.drop(columns=[label], errors="ignore"))


def lines(file: Path) -> list[bytes]:
    """Of JSON, one object each; empty ones are records without a value."""
    if not file.is_file():
        raise SakerError(f"no such file: {file}")
    data = file.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise SakerError(f"{file}: the gzip file is damaged ({error})") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    wrong = {
        b"[": "a JSON array; write one object a line, say with `jq -c .[]`",
        codecs.BOM_UTF16_LE: "text in UTF-16; convert it, say with `iconv -f UTF-16 -t UTF-8`",
        codecs.BOM_UTF16_BE: "text in UTF-16; convert it, say with `iconv -f UTF-16 -t UTF-8`",
    }
    for start, what in wrong.items():
        if data.lstrip(b" \t\r\n").startswith(start):
            raise SakerError(f"{file}: expected CSV (.csv, .csv.gz), Parquet, Avro or one JSON object per line, got {what}")
    found = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return found[:-1] if not found[-1] else found


def _without(label: str, line: bytes) -> bytes:
    """The line without the fields of this name, however they are spelled: they are cut out, and all else stays as it is."""
    if label.encode() not in line and b"\\" not in line:
        return line
    try:
        text = line.decode()
        spans = list(_members(text))
    except (ValueError, IndexError, RecursionError):  # not JSON, which the decoder will report
        return line
    kept = [text[start:end] for name, start, end in spans if name != label]
    if len(kept) == len(spans):
        return line
    return (text[: spans[0][1]] + ",".join(kept) + text[spans[-1][2] :]).encode()


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of each field of the object that `text` consists of, with the white space around it.

    Raises ValueError or IndexError if it is not an object.
    """
    value = json.JSONDecoder()
    at = _after_space(text, 0)
    if text[at] != "{":
        raise ValueError
    at += 1
    while True:
        start = at
        at = _after_space(text, at)
        if text[at] == "}" and text[start - 1] == "{":
            return
        name, at = value.raw_decode(text, at)
        at = _after_space(text, at)
        if not isinstance(name, str) or text[at] != ":":
            raise ValueError
        _, at = value.raw_decode(text, _after_space(text, at + 1))
        at = _after_space(text, at)
        yield name, start, at
        if text[at] == "}":
            return
        if text[at] != ",":
            raise ValueError
        at += 1


def _after_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def generated(count: int, seed: int, first: int, label: str, key: str) -> Iterator[Pair]:
    from saker.engine.kafka import replay
    from saker.training import synthetic, tables

    for frame in synthetic.frames(count, seed, first):
        yield from replay.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)
