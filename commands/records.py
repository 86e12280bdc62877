"""Raw records from files, as commands take them; without the label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.errors import SakerError


def file_records(file: Path, id_field: str, label: str) -> list[bytes]:
    """Raw records of a CSV file, or of a file with one JSON object a line; without the label."""
    if file.suffix.lower() == ".csv":
        from training import tables

        return tables.to_records(tables.read_csv(file, id_field).drop(columns=[label], errors="ignore"))
    return [_without(label, line) for line in lines(file)]


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
    from bench import load
    from training import synthetic, tables

    for frame in synthetic.frames(count, seed, first):
        yield from load.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)
