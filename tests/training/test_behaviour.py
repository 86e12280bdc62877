"""Payments whose fraud shows over time: the same for the same seed, and a matter of the past."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from saker.export.features_file import read_velocity
from saker.training import behaviour
from saker.training.fit import Settings, train
from tests.support.command_line import main_here

SETTINGS = Settings(label="is_fraud", time="time", id_field="id")


def test_a_model_finds_the_fraud_by_the_past_alone() -> None:
    table = behaviour.payments(40_000, 3)
    without = train(table, SETTINGS).metrics
    past = train(
        table, Settings(label="is_fraud", time="time", id_field="id", velocity=read_velocity(behaviour.FEATURES))
    ).metrics
    assert without["roc_auc"] < 0.82
    assert without["pr_auc"] < 0.1
    assert 0.88 < past["roc_auc"] < 0.98
    assert past["pr_auc"] > 0.4


def test_payments_depend_on_number_and_seed_alone() -> None:
    pd.testing.assert_frame_equal(behaviour.payments(2000, 1), behaviour.payments(2000, 1))
    assert not behaviour.payments(2000, 1).equals(behaviour.payments(2000, 2))
    table = behaviour.payments(5000)
    assert len(table) == 5000
    assert table["time"].is_monotonic_increasing
    assert table["is_fraud"].sum() == 100
    assert not table.isna().any().any()


@pytest.mark.parametrize("name", ["payments.csv", "payments.parquet", "payments.jsonl", "payments.txt"])
def test_generate_writes_them(name: str, tmp_path: Path) -> None:
    done = main_here("generate", name, "--rows", "2000", "--velocity", "velocity.toml", folder=tmp_path)
    if name == "payments.txt":
        assert done.returncode == 2
        assert "expected a name that ends with" in done.stderr
        return
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda path: pd.read_json(path, lines=True)}
    pd.testing.assert_frame_equal(read[Path(name).suffix](tmp_path / name), behaviour.payments(2000), check_dtype=False)
    assert len(read_velocity(tmp_path / "velocity.toml")) == 9
