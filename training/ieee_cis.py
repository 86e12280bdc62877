"""The IEEE-CIS Fraud Detection files: transactions, left-joined with identities on TransactionID.

    DIR/train_transaction.csv (.csv.gz, .parquet) --+
    DIR/train_identity.csv    (.csv.gz, .parquet) --+--> frames() --> one table, columns and types of the published schema

Types come from the schema and not from the rows, so a part of a file reads as the whole does: a feature cannot differ between
training and a replay. Source of the schema: the competition's data page (Vesta, 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from saker.training.tables import TableError, csv_parts

ID, LABEL, TIME = "TransactionID", "isFraud", "TransactionDT"
_TEXT_IDS = (12, 15, 16, 23, *range(27, 32), *range(33, 39))
_TRANSACTION = (
    *(TIME, "TransactionAmt", "ProductCD"),
    *(f"card{i}" for i in range(1, 7)),
    *("addr1", "addr2", "dist1", "dist2", "P_emaildomain", "R_emaildomain"),
    *(f"C{i}" for i in range(1, 15)),
    *(f"D{i}" for i in range(1, 16)),
    *(f"M{i}" for i in range(1, 10)),
    *(f"V{i}" for i in range(1, 340)),
)
_IDENTITY = (*(f"id_{i:02}" for i in range(1, 39)), "DeviceType", "DeviceInfo")
#: Columns that hold text; all others are numbers.
TEXT = frozenset(
    {"ProductCD", "card4", "card6", "P_emaildomain", "R_emaildomain", "DeviceType", "DeviceInfo"}
    | {f"M{i}" for i in range(1, 10)}
    | {f"id_{i:02}" for i in _TEXT_IDS}
)
_ENDINGS = (".csv", ".csv.gz", ".parquet")


def frames(folder: Path, part: str = "train") -> Iterator[pd.DataFrame]:
    """Joined rows in the order of the transaction file, a part of it at a time.

    part: train, or test (which has no labels, and writes id-01 for id_01). Raises `TableError` for a file or a column that is
    missing, with all of them named.
    """
    transaction, identity = _file(folder, f"{part}_transaction"), _file(folder, f"{part}_identity")
    labelled = (ID, LABEL) if part == "train" else (ID,)
    identities = pd.concat(list(_read(identity, (ID, *_IDENTITY)))).set_index(ID)
    if not identities.index.is_unique:
        twice = identities.index[identities.index.duplicated()][0]
        raise TableError(f"{identity}: {ID} {twice} occurs more than once; expected one row per transaction")
    for rows in _read(transaction, (*labelled, *_TRANSACTION)):
        yield rows.join(identities, on=ID)


def read(folder: Path, part: str = "train") -> pd.DataFrame:
    """All of `frames` in one table: about 2 GB for the 590,540 rows of the real training files."""
    return pd.concat(list(frames(folder, part)), ignore_index=True)


def _file(folder: Path, stem: str) -> Path:
    found = [path for ending in _ENDINGS if (path := folder / f"{stem}{ending}").is_file()]
    if not found:
        raise TableError(f"{folder}: expected {stem}{' or '.join(_ENDINGS)} of the IEEE-CIS data; found none")
    return found[0]


def _read(path: Path, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    if path.suffix == ".parquet":
        yield _typed(pd.read_parquet(path), columns, path)
        return
    for rows in csv_parts(path, lambda name: pa.string() if _spelled(name) in TEXT else pa.float64()):
        yield _typed(rows, columns, path)


def _spelled(name: str) -> str:
    return name.replace("id-", "id_") if name.startswith("id-") else name


def _typed(rows: pd.DataFrame, columns: tuple[str, ...], path: Path) -> pd.DataFrame:
    rows = rows.rename(columns=_spelled)
    if missing := [name for name in columns if name not in rows]:
        told = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")  # noqa: PLR2004
        raise TableError(f"{path}: {len(missing)} of {len(columns)} columns are missing: {told}")
    rows = rows[list(columns)]
    try:
        # An identifier or a label that is missing is no row; any other number may be.
        types = {name: np.int64 if name in (ID, LABEL) else np.float64 for name in columns if name not in TEXT}
        rows = rows.astype(types)
    except (ValueError, TypeError) as error:
        raise TableError(f"{path}: expected numbers in every column but the {len(TEXT)} that hold text: {error}") from error
    texts = [name for name in columns if name in TEXT]
    rows[texts] = rows[texts].astype(object).where(rows[texts].notna(), None)
    return rows
