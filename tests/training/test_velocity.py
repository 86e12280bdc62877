"""Training with velocity features: the matrix is what SQL says, and the exported file proves it with its golden records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from saker.engine.errors import ModelRefused
from saker.engine.model.session import open_session
from saker.engine.records.decode import Decoder
from saker.export.errors import BrokenModel
from saker.export.features_file import read_velocity
from saker.export.proven_export import export_proven
from saker.training.fit import Settings, Trained, build_matrix, train
from tests.support.command_line import main_here

FEATURES = """
[[velocity]]
name = "card_spend_1h"
by = "card"
of = "amount"
function = "sum"
window = "1h"
scale = 2

[[velocity]]
name = "card_count_1d"
by = ["card"]
function = "count"
window = "1d"
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("velocity") / "velocity.toml"
    path.write_text(FEATURES)
    return path


def bursts(rows: int = 6000) -> pd.DataFrame:
    """A card is stolen now and then: then it pays every few seconds, amounts as usual."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 30 * 86400, rows))
    cards = rng.integers(0, 300, rows)
    fraud = np.zeros(rows, np.int64)
    for start in rng.integers(0, rows - 10, rows // 60):
        cards[start : start + 8] = cards[start]
        times[start : start + 8] = times[start] + np.arange(8) * 20
        fraud[start + 2 : start + 8] = 1
    table = pd.DataFrame(
        {"id": np.arange(rows), "time": times, "card": cards, "amount": rng.gamma(2, 30, rows).round(2), "y": fraud}
    )
    return table.sort_values("time", kind="stable").reset_index(drop=True)


def settings(features: Path | None) -> Settings:
    velocity = () if features is None else read_velocity(features)
    return Settings(label="y", time="time", id_field="id", rounds=40, velocity=velocity)


@pytest.fixture(scope="module")
def trained(features: Path) -> Trained:
    return train(bursts(), settings(features))


def test_the_features_are_those_of_sql(trained: Trained) -> None:
    table = bursts()
    records = [json.dumps(row).encode() for row in table.drop(columns="y").to_dict("records")]
    matrix = build_matrix(trained.contract, records).matrix
    table["at"] = np.arange(len(table))
    query = """
        select r.at,
          coalesce(sum(round_even(q.amount * 100.0, 0)) filter (q.time // 60 > r.time // 60 - 60), 0)::double / 100.0,
          count(q.at) filter (q.time // 1440 > r.time // 1440 - 60)
        from rows r left join rows q on q.at < r.at and q.card = r.card group by r.at order by r.at
        """
    with duckdb.connect() as database:
        database.register("rows", table)
        expected = database.execute(query).fetchall()
    assert matrix[:, -2].tolist() == [float(np.float32(spend)) for _, spend, _ in expected]
    assert matrix[:, -1].tolist() == [count for _, _, count in expected]


def test_behaviour_is_learned(trained: Trained) -> None:
    """Of a single row nothing shows the fraud."""
    without = train(bursts(), settings(None))
    assert trained.metrics["roc_auc"] > 0.9
    assert without.metrics["roc_auc"] < 0.7


def test_golden_records_carry_their_history(trained: Trained, tmp_path: Path) -> None:
    assert any(golden.history for golden in trained.contract.golden)
    proven = export_proven(trained.booster, trained.contract)
    (tmp_path / "fraud.onnx").write_bytes(proven.data)
    assert open_session(tmp_path / "fraud.onnx").contract == proven.session.contract
    assert open_session(proven.data, "off").contract.velocity == trained.contract.velocity


def test_a_history_that_was_changed_is_refused(trained: Trained) -> None:
    golden = trained.contract.golden
    at = next(at for at, one in enumerate(golden) if one.row[-1])  # counts at least its newest earlier record
    damaged = (*golden[:at], replace(golden[at], history=golden[at].history[:-1]), *golden[at + 1 :])
    with pytest.raises(ModelRefused, match="decode to other rows"):
        export_proven(trained.booster, replace(trained.contract, golden=damaged))


def test_a_file_is_scored_as_in_training(trained: Trained, tmp_path: Path) -> None:
    table = bursts()
    table.drop(columns="y").to_csv(tmp_path / "all.csv", index=False)
    (tmp_path / "fraud.onnx").write_bytes(export_proven(trained.booster, trained.contract).data)
    found = main_here("score", "all.csv", "--model", "fraud.onnx", "-o", "scores.jsonl", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    scores = [json.loads(line)["fraud_score"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert scores[-len(trained.scores) :] == trained.scores.tolist()


def test_nothing_reads_it_without_a_history(trained: Trained) -> None:
    with pytest.raises(ModelRefused, match="velocity features"):
        Decoder(trained.contract)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"1h"', '"soon"', "window 'soon': expected a whole number with a unit"),
        ('"1h"', '"30s"', "expected 1m to 90d"),
        ('"sum"', '"median"', "function is 'median', expected one of count, sum"),
        ('of = "amount"\n', "", "sum needs `of`"),
        ("scale = 2", "scale = 12", "expected 0 to 9 decimals"),
        ('by = "card"', "by = []", "expected 1 to 8 different paths"),
        ('by = "card"', 'by = "card."', "expected keys separated by dots"),
    ],
)
def test_a_wrong_definition_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "velocity.toml"
    path.write_text(FEATURES.replace(old, new, 1))
    with pytest.raises(ModelRefused, match=message) as refused:
        read_velocity(path)
    assert "card_spend_1h" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a \\[\\[velocity\\]\\]"),
        ("[[velocity]]\nname = 'a'\n", "velocity feature 1 has no by and no function and no window"),
        ("[[velocity]]\nname = 'a'\nwindows = '1h'\n", "velocity feature 1 has 'windows', expected one of name, by"),
        ("[[features]]\nname = 'a'\n", "the file has 'features', expected one of velocity"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "velocity.toml"
    path.write_text(text)
    with pytest.raises(BrokenModel, match=message):
        read_velocity(path)
