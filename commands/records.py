"""Raw records from files, as commands take them; without the label."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.training.fit import Settings

Table = Any  # of pandas, which takes half a second to import
Window = tuple[float | None, float | None]


def file_records(file: Path, id_field: str, label: str, missing: Collection[str] = ()) -> list[bytes]:
    """Raw records of a CSV file, or of a file with one JSON object a line, either perhaps gzipped; without the label.

    A line is taken as it stands, byte for byte, but for a label in it. missing: what means missing in a CSV file.
    """
    if is_table(file):
        from saker.training import tables

        return tables.to_records(tables.read_csv(file, id_field, missing).drop(columns=[label], errors="ignore"))
    return [_without(label, line) for line in lines(file)]


def is_table(file: Path) -> bool:
    """Whether the name of a file is that of a CSV file."""
    return bool({".csv", ".tsv"} & {suffix.lower() for suffix in file.suffixes[-2:]})


def read_table(data: Path, id_field: str, missing: Collection[str] = ()) -> Table:
    """A CSV file, or a folder with the IEEE-CIS files."""
    from saker.training import ieee_cis, tables

    return ieee_cis.read(data) if data.is_dir() else tables.read_csv(data, id_field, missing)


def labelled_table(
    data: Path | None, generate: int, seed: int, settings: Settings, window: Window
) -> tuple[Table, dict[str, str]]:
    """What to train on, and where it is from. window: start <= time < end in seconds, None where it is open."""
    from saker.training import synthetic, tables

    start, end = window
    told = {name: str(value) for name, value in (("from", start), ("until", end)) if value is not None}
    if data is None:
        if end is None:
            table = synthetic.frame(generate, seed)
            return table if start is None else table[table[settings.time] >= start], {"generate": str(generate), **told}
        first, count = synthetic.between(start or 0.0, end)
        if not count:
            raise SakerError(f"no generated transaction has {settings.time} from {start or 0:g} until {end:g}")
        return synthetic.frame(count, seed, first), {"generate": str(count), **told}
    table = read_table(data, settings.id_field, settings.missing)
    if told:
        times = tables.seconds(table, settings.time, "--time")
        whole = f"{times.min():g} to {times.max():g}"
        table = table[(times >= (float("-inf") if start is None else start)) & (times < (float("inf") if end is None else end))]
        if table.empty:
            raise SakerError(f"{data}: no row has {settings.time} from {start} until {end}; the file has {whole}")
    return table, {"data": str(data), **told}


def folder_records(folder: Path, part: str, label: str, key: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    """The IEEE-CIS files, joined and typed as in training, as (key, record); without the label."""
    from saker.engine.kafka import replay
    from saker.training import ieee_cis, tables

    for frame in ieee_cis.frames(folder, part):
        yield from replay.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)


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
        b"PAR1": "a Parquet file",
        codecs.BOM_UTF16_LE: "text in UTF-16; convert it, say with `iconv -f UTF-16 -t UTF-8`",
        codecs.BOM_UTF16_BE: "text in UTF-16; convert it, say with `iconv -f UTF-16 -t UTF-8`",
    }
    for start, what in wrong.items():
        if data.lstrip(b" \t\r\n").startswith(start):
            raise SakerError(f"{file}: expected a CSV file (.csv, .csv.gz) or one JSON object a line, got {what}")
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


def generated(count: int, seed: int, first: int, label: str, key: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    from saker.engine.kafka import replay
    from saker.training import synthetic, tables

    for frame in synthetic.frames(count, seed, first):
        yield from replay.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)
