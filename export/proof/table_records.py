"""A CSV file as records, for `saker verify` only. It uses Python's reader, not that of training and replay
(training/tables.py), so a fault of the latter shows as a difference."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Collection
from pathlib import Path

from saker.engine.errors import SakerError

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LARGEST_FIELD = 1 << 30


def table_records(path: Path, id_field: str, label: str, missing: Collection[str] = ()) -> list[bytes]:
    """Each row as `saker score` and `saker replay` say it; rows are numbered in `id_field` where there is no such column."""
    csv.field_size_limit(_LARGEST_FIELD)
    records = []
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
        with io.StringIO(text, newline="") as file:
            first = file.readline()
            separator = next((one for one in ",;\t|" if one in re.sub('"[^"]*"', "", first)), ",")
            file.seek(0)
            rows = csv.reader(file, delimiter=separator, strict=True)
            names = next(rows)
            for number, row in enumerate(row for row in rows if row):
                if len(row) != len(names):
                    raise SakerError(f"{path}: row {number + 2} has {len(row)} fields, the header {len(names)}")
                fields = [] if id_field in names else [f"{json.dumps(id_field)}:{number}"]
                fields += [
                    f"{json.dumps(n, ensure_ascii=False)}:{_json(v, missing)}"
                    for n, v in zip(names, row, strict=True)
                    if n != label
                ]
                records.append(f"{{{','.join(fields)}}}".encode())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise SakerError(f"{path}: expected a CSV file with a header line: {error}") from error
    return records


def _json(text: str, missing: Collection[str]) -> str:
    if not text or text in missing:
        return "null"
    return text if _NUMBER.fullmatch(text) else json.dumps(text, ensure_ascii=False)
