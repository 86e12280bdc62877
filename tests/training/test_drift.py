"""What moved is reported, and what did not is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saker.engine.contract import Contract
from saker.engine.records.decode import Decoder
from saker.training import synthetic
from saker.training.drift import LIMIT, NoReference, distribution, drift, drifted, plot, psi
from saker.training.fit import Settings, Trained, train
from saker.training.tables import to_records
from tests.support.examples import seeds

LIVE = 10_000


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(synthetic.frame(20_000), Settings(rounds=60))


@pytest.mark.parametrize("seed", seeds(20))
def test_amounts_times_three_are_told_and_unchanged_traffic_is_not(trained: Trained, seed: int) -> None:
    table = synthetic.frame(LIVE, seed=100 + seed).drop(columns="isFraud")
    for factor in (1, 3):
        changed = table.assign(TransactionAmt=table["TransactionAmt"] * factor)
        matrix = Decoder(trained.contract).decode(to_records(changed)).matrix
        scores = np.asarray(trained.booster.predict(matrix, num_threads=1))
        told = [one.name for one in drifted(drift(trained.contract, matrix, scores), LIMIT)]
        assert ("TransactionAmt" in told) == (factor == 3)
        if factor == 1:
            assert told == []


def test_psi_is_zero_for_the_same_and_grows_with_the_shift() -> None:
    rng = np.random.default_rng(0)
    then = distribution(rng.normal(size=50_000).astype(np.float32))
    shifts = [psi(then, (rng.normal(size=10_000) + shift).astype(np.float32)) for shift in (0, 0.2, 0.5, 1, 3)]
    assert shifts[0] < 0.01
    assert shifts == sorted(shifts)
    assert shifts[-1] > 1


def test_missing_values_and_categories_have_bins_of_their_own() -> None:
    values = np.array([0.0, 1.0, 1.0, np.nan], np.float32)
    then = distribution(values)
    assert (then.edges, then.shares) == ((0.0,), (0.25, 0.5, 0.25))
    assert psi(then, values) == pytest.approx(0)
    assert psi(then, np.full(100, np.nan, np.float32)) > LIMIT
    assert psi(distribution(np.full(10, np.nan, np.float32)), values) > LIMIT


def test_the_reference_travels_in_the_contract(trained: Trained) -> None:
    contract = Contract.from_json(trained.contract.to_json())
    assert contract == trained.contract
    assert len(contract.reference) == len(contract.features)
    assert contract.provenance.learned_until is not None
    assert contract.provenance.time_range is not None
    assert contract.provenance.time_range[0] < contract.provenance.learned_until < contract.provenance.time_range[1]


def test_calendar_features_are_shown_and_not_judged(trained: Trained) -> None:
    table = synthetic.frame(500, first=40_000).drop(columns="isFraud")  # some hours of one day
    matrix = Decoder(trained.contract).decode(to_records(table)).matrix
    found = drift(trained.contract, matrix, np.asarray(trained.booster.predict(matrix, num_threads=1)))
    assert found[0].name == "score"
    day = next(one for one in found if one.name == "day_of_week")
    assert day.psi > LIMIT
    assert day not in drifted(found, LIMIT)
    assert plot(found, LIMIT).startswith(b"\x89PNG")


def test_a_model_without_a_reference_is_refused_by_name(trained: Trained) -> None:
    with pytest.raises(NoReference, match="train it again"):
        drift(replace(trained.contract, reference=()), np.empty((0, 1), np.float32), np.empty(0))
