from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from saker.engine.records.decode import Decoder
from saker.export.proven_export import export_proven
from saker.training import synthetic
from saker.training.evaluate import threshold_at_false_positive_rate
from saker.training.fit import Settings, Trained, build_matrix, train
from saker.training.tables import TableError, numbers, read_csv

ULB = Path(__file__).parents[1] / "data" / "ulb_creditcard_sample.csv"
CARDS = Settings(label="Class", time="Time", id_field="ID", rounds=60)


@pytest.fixture(scope="module")
def cards() -> pd.DataFrame:
    return read_csv(ULB, "ID")


@pytest.fixture(scope="module")
def trained(cards: pd.DataFrame) -> Trained:
    return train(cards, CARDS)


def test_real_cards_are_learned(trained: Trained) -> None:
    assert trained.metrics["roc_auc"] > 0.9
    assert trained.metrics["rejected_rows"] == 0


def test_identifier_and_raw_time_are_no_features(trained: Trained) -> None:
    names = [feature.name for feature in trained.contract.features]
    assert names == ["hour_of_day", "day_of_week", *(f"V{i}" for i in range(1, 29)), "Amount"]


def test_the_newest_rows_are_held_back(cards: pd.DataFrame, trained: Trained) -> None:
    assert len(trained.records) == len(cards) - int(len(cards) * 0.85)
    newest = cards.iloc[np.argsort(numbers(cards, "Time", "--time"), kind="stable")[-1]]
    assert f'"Amount":{newest["Amount"]}' in trained.records[-1].decode()
    assert '"Class"' not in trained.records[-1].decode()


def test_the_same_data_and_seed_give_the_same_model(cards: pd.DataFrame, trained: Trained) -> None:
    again = train(cards.sample(frac=1, random_state=1).sort_values("ID"), CARDS)
    assert again.booster.model_to_string() == trained.booster.model_to_string()
    assert again.contract == trained.contract
    other = train(cards, replace(CARDS, seed=1))
    assert other.booster.model_to_string() != trained.booster.model_to_string()


def test_golden_records_hold_lightgbms_scores(trained: Trained) -> None:
    golden = trained.contract.golden
    decoded = Decoder(trained.contract).decode([g.record.encode() for g in golden])
    np.testing.assert_array_equal(decoded.matrix, np.array([g.row for g in golden], np.float32))
    assert trained.booster.predict(decoded.matrix).tolist() == [g.score for g in golden]


def test_generated_fraud_is_learnable_and_not_trivial() -> None:
    trained = train(synthetic.frame(12_000), Settings(rounds=60))
    assert 0.85 < trained.metrics["roc_auc"] < 0.97


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(CARDS, label="isFraud"), r"no column 'isFraud' \(from --label\); the file has ID, Time, V1"),
        (replace(CARDS, label="Amount"), r"column 'Amount' \(from --label\): expected 0 and 1"),
        (replace(CARDS, time="When"), r"no column 'When' \(from --time\)"),
    ],
)
def test_a_wrong_column_is_named(cards: pd.DataFrame, settings: Settings, message: str) -> None:
    with pytest.raises(TableError, match=message):
        train(cards, settings)


def test_the_threshold_lies_between_two_scores(cards: pd.DataFrame) -> None:
    """A model of one stump has few scores: a threshold at one of them flipped with the last bit of the exponential."""
    labels, scores = np.array([0] * 99 + [1]), np.array([0.1] * 95 + [0.2, 0.3, 0.4, 0.5, 0.7])
    assert threshold_at_false_positive_rate(labels, scores) == pytest.approx(0.6)
    assert threshold_at_false_positive_rate(labels, np.full(100, 0.5)) > 0.5
    trained = train(cards, replace(CARDS, rounds=1))
    assert (np.abs(trained.scores - trained.contract.threshold) > 1e-6).all()
    assert export_proven(trained.booster, trained.contract, build_matrix(trained.contract, trained.records)[0]).report.passed
