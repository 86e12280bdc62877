"""Tables to raw records and back: CSV files, schema, JSON as a producer would send it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype, is_object_dtype

from saker.engine.contract import Feature
from saker.engine.errors import SakerError

#: A category keeps its most frequent values; the rest is scored as missing.
MAX_VOCABULARY = 255


class TableError(SakerError):
    """A file cannot be used as asked for: the message names the column or the row."""


def read_csv(path: Path, id_field: str) -> pd.DataFrame:
    """A CSV file with a header; rows are numbered in `id_field` when the file has no such column."""
    if not path.exists():
        raise TableError(f"no such file: {path}")
    try:
        table = pd.read_csv(path, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: expected a CSV file with a header line, got: {error}") from error
    for column in table:
        # True and False are the text that the file holds, as any other category is, not JSON's booleans.
        if is_bool_dtype(table[column]) or is_object_dtype(table[column]):
            table[column] = table[column].map(str, na_action="ignore")
    if id_field not in table:
        table.insert(0, id_field, np.arange(len(table)))
    return table


def require(table: pd.DataFrame, column: str, option: str) -> None:
    """Raise `TableError` when `column`, given by the command-line `option`, is not in the table."""
    if column not in table:
        known = ", ".join(map(str, table.columns[:8]))
        raise TableError(f"no column {column!r} (from {option}); the file has {known}, ... ({table.shape[1]} in all)")


def to_records(table: pd.DataFrame) -> list[bytes]:
    """One JSON object a row, every column in it, missing values as null."""
    names = [str(name) for name in table.columns]
    columns = [table[name].tolist() for name in table.columns]
    # orjson writes NaN, which is how pandas holds missing values, as null.
    return [orjson.dumps(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def features_of(table: pd.DataFrame, *, time: str | None) -> tuple[Feature, ...]:
    """The features that the columns of `table` make: numbers, categories with their vocabulary, parts of the time.

    A feature that is never missing here is required: LightGBM learned nothing about its absence, so a live record
    without it is rejected rather than guessed at.
    """
    features = []
    for column in table.columns:
        values = table[column]
        if column == time:
            features += [
                Feature(name, "derived", required=True, source=str(column), derivation=name)
                for name in ("hour_of_day", "day_of_week")
            ]
        elif is_numeric_dtype(values):
            features.append(Feature(str(column), "number", required=not values.isna().any()))
        else:
            counts = values.dropna().astype(str).value_counts()
            vocabulary = tuple(sorted(counts.index[:MAX_VOCABULARY]))
            features.append(Feature(str(column), "category", not values.isna().any(), vocabulary))
    return tuple(features)
