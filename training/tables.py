"""Tables to raw records: CSV files, their schema, JSON as a producer would send it.

    file.csv[.gz] --read_csv--> table: every column as its text in the file
                                  |--to_records--> {"id":7,"amount":12.50,"shop":"NA","note":null}
                                  \\--features_of--> numbers, categories

A field of a record depends on its own text only: a JSON number is copied, an empty field is null, everything else is a string.
So a row means the same alone and among others, in training and in a stream.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from csv import Error as CSVError
from csv import reader
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pyarrow import compute, csv

from saker.engine.contract import UNITS, Feature
from saker.engine.errors import SakerError
from saker.engine.paths import parse_path
from saker.engine.records.reference_decoder import time_of

#: A category keeps its most frequent values; the rest is scored as missing.
MAX_VOCABULARY = 255
SEPARATORS = ",;\t|"
#: Of the columns of a file that was read as text.
TEXT = pd.ArrowDtype(pa.string())

_BLOCK, _LONGEST_HEADER = 1 << 24, 10_000_000
_ROWS = 10_000  # of which records are made at once
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"  # RFC 8259, as a record's numbers
_LIKE_A_NUMBER = (
    r"^\s*([A-Z]{3}\s)?[\s$€£¥+-]*([0-9]+([., ' ][0-9]{3})*([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?[\s$€£¥%]*([A-Z]{3}\s*)?$"
)
_CODE = r"^0[0-9]+$"  # leading zeros, as postcodes have them
_NO_NUMBER = ("inf", "infinity", "nan", "na", "n/a", "null", "none", "-", "?", "#n/a", "nil", "undefined", "missing", "<na>")
_MILLISECONDS = 1e11  # seconds from the year 5138 on, milliseconds from 1973 on


class TableError(SakerError):
    """A file cannot be used as asked for: the message names the column or the row."""


def read_csv(path: Path, id_field: str, missing: Collection[str] = ()) -> pd.DataFrame:
    """A CSV file as `csv_parts` reads it, every column as text (TEXT).

    Rows are numbered in `id_field` when the file has no such column.
    """
    frame = pd.concat(list(csv_parts(path, lambda _: pa.string(), missing)), ignore_index=True)
    if id_field not in frame:
        frame.insert(0, id_field, pd.array([str(number) for number in range(len(frame))], TEXT))
    return frame


def csv_parts(path: Path, type_of: Callable[[str], pa.DataType], missing: Collection[str] = ()) -> Iterator[pd.DataFrame]:
    """A CSV file (RFC 4180) with a header, in UTF-8, or gzipped, in parts of some thousand rows. Empty fields are missing.

    The separator is the one of `,` `;` tab `|` in the header. type_of: name of a column -> its type. missing: texts that mean
    missing in every column, too. Raises `TableError` for any other file, with the row that has more or fewer fields than the
    header.
    """
    names, separator = _header(path)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TableError(f"{path}: two columns are called {twice[0]!r}; a record can have one of each name")
    types = {name: type_of(name) for name in names}
    rows = 0
    try:
        with open_maybe_gzipped(path) as file:
            if sum(block.count(b'"') for block in iter(lambda: file.read(_BLOCK), b"")) % 2:
                raise TableError(f"{path}: a quote is not closed; one that is part of a field is doubled, and the field quoted")
        with (
            open_maybe_gzipped(path) as file,
            csv.open_csv(
                file,
                csv.ReadOptions(use_threads=False, block_size=_BLOCK),  # with threads an error does not say which row
                csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=["", *missing]),
            ) as parts,
        ):
            for part in parts:
                rows += part.num_rows
                yield part.to_pandas(types_mapper=pd.ArrowDtype)
    except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path}: expected rows as its header line says: {error}") from error
    if rows == 0:
        raise TableError(f"{path}: it has a header line and no rows")


def open_maybe_gzipped(path: Path) -> BinaryIO:
    """The content of a plain or gzipped file, recognised by its first bytes; raises `TableError` if it does not exist."""
    if not path.is_file():
        raise TableError(f"no such file: {path}")
    file = path.open("rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file


def _header(path: Path) -> tuple[list[str], str]:
    """The names of the columns, and the separator; raises `TableError` where the file has no header."""
    try:
        with io.TextIOWrapper(open_maybe_gzipped(path), encoding="utf-8-sig", newline="") as file:
            start = file.readline(_LONGEST_HEADER)
            if not start.strip() or "\0" in start or start.lstrip().startswith(("{", "[", "PAR1")):
                got = f"{start[:40]!r}" if start.strip() else "nothing"
                raise TableError(f"{path}: expected a CSV file with a header line, got {got}")
            outside = re.sub('"[^"]*"?', "", start)
            separator = next((one for one in SEPARATORS if one in outside), ",")
            names = next(reader(itertools.chain([start], file), delimiter=separator, strict=True))
    except UnicodeDecodeError:
        raise TableError(f"{path}: expected text in UTF-8; convert it, say with `iconv -f LATIN1 -t UTF-8`") from None
    except (OSError, EOFError, zlib.error, CSVError, StopIteration) as error:
        raise TableError(f"{path}: expected a CSV file with a header line, got: {error}") from error
    return names, separator


def require(table: pd.DataFrame, column: str, option: str) -> None:
    """Raise `TableError` when `column`, given by the command-line `option`, is not in the table."""
    if column not in table:
        known = ", ".join(map(str, table.columns[:8]))
        raise TableError(f"no column {column!r} (from {option}); the file has {known}, ... ({table.shape[1]} in all)")


def numbers(table: pd.DataFrame, column: str, option: str) -> NDArray[np.float64]:
    """A column (n,) as numbers; raises `TableError`, with the row, where one is missing or none."""
    require(table, column, option)
    values = table[column]
    if is_bool_dtype(values):
        values = values.astype("float64[pyarrow]")
    if values.dtype == TEXT:
        array = pa.array(values)
        bad = compute.invert(compute.fill_null(compute.match_substring_regex(array, _NUMBER), False))
        if (row := compute.index(bad, True).as_py()) >= 0:
            raise TableError(
                f"column {column!r} (from {option}): expected numbers, got {array[row].as_py()!r} in row {row + 1}"
            )
        made: NDArray[np.float64] = np.asarray(compute.cast(array, pa.float64()), np.float64)
        return made
    found: NDArray[np.float64] = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    if (lacks := np.flatnonzero(np.isnan(found))).size:
        row = int(lacks[0])
        raise TableError(f"column {column!r} (from {option}): expected numbers, got {values.iloc[row]!r} in row {row + 1}")
    return found


def labels_of(table: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """The column (n,) of --label; raises `TableError` unless both 0 and 1 are in it, and nothing else."""
    found = numbers(table, column, "--label")
    if (values := set(np.unique(found).tolist())) != {0.0, 1.0}:
        raise TableError(f"column {column!r} (from --label): expected 0 and 1, got {sorted(values)[:5]}")
    return found.astype(np.int64)


def seconds(table: pd.DataFrame, column: str, option: str, unit: str = "s") -> NDArray[np.float64]:
    """A column (n,) of times in seconds: moments, text in ISO 8601, or numbers in `unit` (a key of UNITS).

    Raises `TableError` as `numbers`, and for numbers that can only be of a finer unit.
    """
    require(table, column, option)
    if is_time(table[column]):
        array = pa.array(table[column])
        if (row := compute.index(compute.is_null(array), True).as_py()) >= 0:
            raise TableError(f"column {column!r} (from {option}): expected times, got nothing in row {row + 1}")
        found = compute.cast(compute.cast(array, pa.timestamp("us"), safe=False), pa.int64())
        moments: NDArray[np.float64] = np.asarray(found, np.float64) / 1e6
        return moments
    if (iso := _iso_times(table[column])) is not None:
        return iso
    found = numbers(table, column, option) / UNITS[unit]
    if len(found) and np.median(np.abs(found)) > _MILLISECONDS:
        raise TableError(
            f"column {column!r} (from {option}): expected seconds, got {found[0]:.0f} in row 1, which can only be milliseconds "
            "or finer: say which with --time-unit ms, us or ns"
        )
    return found


def is_time(values: pd.Series) -> bool:
    """Whether a column has moments or dates by its type."""
    of = getattr(values.dtype, "pyarrow_dtype", None)
    return of is not None and (pa.types.is_timestamp(of) or pa.types.is_date(of))


def _iso_times(values: pd.Series) -> NDArray[np.float64] | None:
    """Of a column of text in ISO 8601, None for any other."""
    if values.dtype != TEXT or not len(values):
        return None
    found = [time_of(text) if isinstance(text, str) else None for text in values.tolist()]
    return None if None in found else np.array(found, np.float64)


def to_records(table: pd.DataFrame) -> list[bytes]:
    """One JSON object a row, every column in it, missing values as null."""
    return [record for start in range(0, len(table), _ROWS) for record in _records(table.iloc[start : start + _ROWS])]


def _records(table: pd.DataFrame) -> Iterator[bytes]:
    names = [str(name) for name in table.columns]
    if names and (table.dtypes == TEXT).all():
        parts: list[Any] = []
        for place, name in enumerate(names):
            parts += [f"{',' if place else '{'}{orjson.dumps(name).decode()}:", _tokens(pa.array(table[name]))]
        joined = compute.binary_join_element_wise(*parts, "}", "")
        return (record.encode() for record in joined.to_pylist())
    columns = [table[name].tolist() for name in table.columns]
    # orjson writes NaN, which is how pandas holds missing values, as null.
    return (orjson.dumps(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))


def _tokens(column: Any) -> Any:
    """Fields as JSON: JSON numbers as they are, missing fields as null, everything else as strings."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if compute.any(compute.match_substring_regex(column, r"[\x00-\x1f]")).as_py():
        quoted = pa.array([None if text is None else orjson.dumps(text).decode() for text in column.to_pylist()], pa.string())
    else:
        escaped = compute.replace_substring(compute.replace_substring(column, "\\", "\\\\"), '"', '\\"')
        quoted = compute.binary_join_element_wise('"', escaped, '"', "")
    is_number = compute.match_substring_regex(column, _NUMBER)
    return compute.fill_null(compute.if_else(is_number, column, quoted), "null")


def features_of(
    table: pd.DataFrame, *, time: str | None, text: Collection[str] = (), unit: str = "s", paths: bool = False
) -> tuple[Feature, ...]:
    """The features of the columns of `table`: numbers, categories with their vocabulary, parts of the time.

    unit: of the time, where it is a number. paths: the columns have types, and paths for names.

    A column is numeric if every field that is not missing is a JSON number. text: columns to read as categories. A feature that
    is never missing here is required: LightGBM learned nothing about its absence, so a live record without it is rejected
    rather than guessed. A feature has the name of its column, in characters that LightGBM accepts, and reads the field with the
    original name.

    Raises `TableError` for a column of numbers in another spelling, and for one without a name.
    """
    for place, column in enumerate(table.columns, 1):
        if not str(column):
            raise TableError(
                f"column {place} has no name (to_csv() of pandas writes its index so: pass index=False); name it or remove it"
            )
    features: list[Feature] = []
    taken: set[str] = set()

    def add(name: str, column: str, **what: Any) -> None:
        safe = unique = "".join("_" if one in '",:[]{}' or one.isspace() or not one.isprintable() else one for one in name)
        number = 1
        while unique in taken:
            number += 1
            unique = f"{safe}_{number}"
        taken.add(unique)
        steps = parse_path(column) if paths else (column,)
        where = {"path": column} if len(steps) > 1 else {} if unique == steps[0] else {"source": steps[0]}
        features.append(Feature(unique, **where, **what))

    for name in table.columns:
        values, column = table[name], str(name)
        required = not values.isna().any()
        if name == time:
            of_unit = {} if unit == "s" or not is_numeric_dtype(values) else {"unit": unit}
            for part in ("hour_of_day", "day_of_week"):
                prefix = f"{column}." if paths and len(parse_path(column)) > 1 else ""
                add(prefix + part, column, kind="derived", required=True, derivation=part, **of_unit)
        elif column in text:
            add(column, column, **_category(values, required))
        elif is_time(values):
            continue
        elif is_numeric_dtype(values) or is_bool_dtype(values) or _is_numeric_text(values, column, typed=paths):
            add(column, column, required=required)
        else:
            add(column, column, **_category(values, required))
    return tuple(features)


def _is_numeric_text(values: pd.Series, column: str, *, typed: bool) -> bool:
    return not typed and values.dtype == TEXT and looks_numeric(pa.array(values), column)


def _category(values: pd.Series, required: bool) -> dict[str, Any]:
    texts = values.dropna().astype(str)
    counts = (texts.str.lower() if is_bool_dtype(values) else texts).value_counts()
    return {"kind": "category", "required": required, "vocabulary": tuple(sorted(counts.index[:MAX_VOCABULARY]))}


def looks_numeric(column: Any, name: str) -> bool:
    """Whether all that is not missing is a JSON number; raises `TableError` for what a person would take for numbers."""
    values = compute.drop_null(column)
    if len(values) == 0:
        return True
    is_number = compute.match_substring_regex(values, _NUMBER)
    if compute.all(is_number).as_py():
        return True
    others = values.filter(compute.invert(is_number))
    others = others.filter(compute.invert(compute.match_substring_regex(others, _CODE)))
    if len(others) == 0:  # postcodes, account numbers
        return False
    alike = compute.match_substring_regex(others, _LIKE_A_NUMBER)
    words = compute.is_in(compute.utf8_lower(compute.utf8_trim_whitespace(others)), pa.array(_NO_NUMBER))
    n_alike = compute.sum(alike).as_py() + len(values) - len(others)
    if n_alike * 2 <= len(values):
        return False
    found = Counter(others.to_pylist()).most_common(3)
    told = ", ".join(f"{text!r} ({count:,})" for text, count in found)
    means = f" --missing {found[0][0]!r} if it means a missing value;" if compute.any(words).as_py() else ""
    raise TableError(
        f"column {name!r}: {n_alike:,} of {len(values):,} values look like numbers, but not all are numbers as JSON has them, "
        f"among them {told}: write them like 1234.5;{means} or --text {name} to take all of them as categories"
    )
