import pandas as pd
import pytest

from saker.training import synthetic

IEEE_CIS = [
    "TransactionID", "isFraud", "TransactionDT", "TransactionAmt", "ProductCD",
    *(f"card{i}" for i in range(1, 7)), "addr1", "addr2", "dist1", "dist2", "P_emaildomain", "R_emaildomain",
    *(f"C{i}" for i in range(1, 15)), *(f"D{i}" for i in range(1, 16)), *(f"M{i}" for i in range(1, 10)),
    *(f"V{i}" for i in range(1, 340)), *(f"id_{i:02}" for i in range(1, 39)), "DeviceType", "DeviceInfo",
]  # fmt: skip


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic.frame(20_000, seed=3)


def test_the_schema_is_that_of_the_joined_files(table: pd.DataFrame) -> None:
    assert len(IEEE_CIS) == 434
    assert list(table.columns) == IEEE_CIS


def test_a_row_is_the_same_however_many_are_asked_for(table: pd.DataFrame) -> None:
    part = synthetic.frame(7_000, seed=3, first=4_321)
    pd.testing.assert_frame_equal(part, table.iloc[4_321:11_321].reset_index(drop=True))
    assert not synthetic.frame(100, seed=4).equals(table.iloc[:100])


def test_fraud_is_as_rare_as_in_the_real_files(table: pd.DataFrame) -> None:
    assert 0.03 < table["isFraud"].mean() < 0.04


def test_missing_v_columns_come_in_blocks(table: pd.DataFrame) -> None:
    missing = table.filter(regex=r"^V\d+$").isna()
    patterns = missing.T.drop_duplicates()
    assert len(patterns) < 20
    assert 0.4 < missing.to_numpy().mean() < 0.6


def test_amounts_are_skewed_and_nights_are_quiet(table: pd.DataFrame) -> None:
    assert table["TransactionAmt"].skew() > 2
    assert table["TransactionDT"].is_monotonic_increasing
    by_hour = (table["TransactionDT"] // 3600 % 24).value_counts()
    assert by_hour.max() > 3 * by_hour.min()


def test_identifiers_count_on(table: pd.DataFrame) -> None:
    assert table["TransactionID"].tolist() == list(range(synthetic.FIRST_ID, synthetic.FIRST_ID + 20_000))
