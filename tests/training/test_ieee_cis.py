"""The files as the competition gives them out, made here of generated transactions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from saker.training import ieee_cis, synthetic, tables
from saker.training.tables import TableError, features_of, to_records

ROWS = 400


def identity_columns(table: pd.DataFrame) -> list[str]:
    return [name for name in table if name.startswith("id_") or name.startswith("Device")]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic.frame(ROWS)


def write(folder: Path, table: pd.DataFrame, part: str, ending: str) -> None:
    """Two files; only a quarter of the transactions has an identity, in another order, as in the real ones."""
    identity = table[["TransactionID", *identity_columns(table)]].iloc[::4].iloc[::-1]
    transaction = table.drop(columns=identity_columns(table))
    if part == "test":
        identity = identity.rename(columns=lambda name: name.replace("id_", "id-"))
        transaction = transaction.drop(columns="isFraud")
    for name, rows in (("transaction", transaction), ("identity", identity)):
        path = folder / f"{part}_{name}{ending}"
        if ending == ".parquet":
            rows.to_parquet(path)
        else:
            rows.to_csv(path, index=False)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_the_two_files_are_joined(tmp_path: Path, table: pd.DataFrame, ending: str) -> None:
    write(tmp_path, table, "train", ending)
    read = ieee_cis.read(tmp_path)
    assert len(read) == ROWS
    assert read.shape[1] == 434
    assert read["TransactionID"].tolist() == table["TransactionID"].tolist()
    assert read.loc[1, identity_columns(table)].isna().all()
    with_identity = read.iloc[::4][identity_columns(table)].astype(object)
    expected = table.iloc[::4][identity_columns(table)].astype(object)
    assert with_identity.where(with_identity.notna(), None).equals(
        expected.where(expected.notna(), None)[with_identity.columns]
    )


def test_the_test_files_spelling_is_the_same_data(tmp_path: Path, table: pd.DataFrame) -> None:
    write(tmp_path, table, "train", ".csv")
    write(tmp_path, table, "test", ".csv.gz")
    train = ieee_cis.read(tmp_path).drop(columns="isFraud")
    assert to_records(ieee_cis.read(tmp_path, "test")) == to_records(train)


def test_a_part_of_a_file_reads_as_the_whole_does(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """card2 is a whole number in rows without a missing value; a record must not show which rows were read with it."""
    write(tmp_path, table, "train", ".csv")
    whole = ieee_cis.read(tmp_path)
    monkeypatch.setattr(tables, "_BLOCK", 20_000)  # some ten rows
    records = [record for part in ieee_cis.frames(tmp_path) for record in to_records(part)]
    assert records == to_records(whole)
    kinds = {feature.name: feature.kind for feature in features_of(whole.drop(columns=["TransactionID"]), time="TransactionDT")}
    assert {name for name, kind in kinds.items() if kind == "category"} == ieee_cis.TEXT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns=["V7", "card1"]), r"2 of 394 columns are missing: card1, V7"),
        (lambda rows: rows.drop(columns=[f"V{i}" for i in range(1, 40)]), "39 of 394 .* and 29 more"),
        (lambda rows: rows.assign(C1="many"), "expected rows as its header line says: .*invalid value 'many'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, table: pd.DataFrame, change: object, message: str) -> None:
    write(tmp_path, table, "train", ".csv")
    path = tmp_path / "train_transaction.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)  # type: ignore[operator]
    with pytest.raises(TableError, match=message) as caught:
        ieee_cis.read(tmp_path)
    assert "train_transaction.csv" in str(caught.value)


def test_a_missing_file_and_a_repeated_identity_are_named(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(TableError, match=r"expected train_transaction.csv or .csv.gz or .parquet"):
        ieee_cis.read(tmp_path)
    write(tmp_path, table, "train", ".csv")
    path = tmp_path / "train_identity.csv"
    rows = pd.read_csv(path)
    pd.concat([rows, rows.iloc[:1]]).to_csv(path, index=False)
    with pytest.raises(TableError, match="occurs more than once"):
        ieee_cis.read(tmp_path)
