"""Raw records from files, as commands take them; without the label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.training.fit import Settings

Table = Any  # of pandas, which takes half a second to import
Window = tuple[float | None, float | None]


def file_records(file: Path, id_field: str, label: str) -> list[bytes]:
    """Raw records of a CSV file, or of a file with one JSON object a line; without the label."""
    if file.suffix.lower() == ".csv":
        from saker.training import tables

        return tables.to_records(tables.read_csv(file, id_field).drop(columns=[label], errors="ignore"))
    return [_without(label, line) for line in lines(file)]


def read_table(data: Path, id_field: str) -> Table:
    """A CSV file, or a folder with the IEEE-CIS files."""
    from saker.training import ieee_cis, tables

    return ieee_cis.read(data) if data.is_dir() else tables.read_csv(data, id_field)


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
    table = read_table(data, settings.id_field)
    if told:
        tables.require(table, settings.time, "--time")
        times = table[settings.time]
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
    if not file.is_file():
        raise SakerError(f"no such file: {file}")
    return file.read_bytes().splitlines()


def _without(label: str, line: bytes) -> bytes:
    """The line as it is, unless it is an object with this field."""
    if label.encode() not in line:
        return line
    import orjson

    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    return orjson.dumps({k: v for k, v in record.items() if k != label}) if isinstance(record, dict) else line


def generated(count: int, seed: int, first: int, label: str, key: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    from saker.engine.kafka import replay
    from saker.training import synthetic, tables

    for frame in synthetic.frames(count, seed, first):
        yield from replay.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)
