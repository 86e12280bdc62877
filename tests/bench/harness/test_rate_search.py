"""Which runs count, and which rate is the highest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saker.bench.harness import results
from saker.bench.harness.contenders import BASELINE, BenchFailed, Contender
from saker.bench.harness.e2e import LATE_MS, Run
from saker.bench.harness.open_loop import Load
from saker.bench.harness.rate_search import at_rate, highest_rate, median_run


def run(rate: float, p99: float = 1.0, *, lost: int = 0, late_ms: float = 0.0, name: str = "baseline") -> Run:
    return Run(
        contender=name, rate=rate, seconds=1, arrivals="poisson", workers=1, sent=int(rate), lost=lost, duplicates=0, checked=0,
        wrong=0, late_ms=late_ms, records_per_s=rate, percentiles_ms={"50": 0.5, "99": p99}, max_ms=p99, mean_ms=0.5, cpu_us=1,
        peak_mb=50, histogram="H",
    )  # fmt: skip


@pytest.mark.parametrize("capacity", [700.0, 20_000.0, 33_000.0, 480_000.0])
def test_the_highest_rate_is_found_from_below_and_from_above(capacity: float) -> None:
    said: list[object] = []

    def at(_: Contender, rate: float) -> Run:
        return run(rate, p99=5 if rate <= capacity else 5000)

    best, tried = highest_rate(at, BASELINE, 20_000, limit_ms=50, say=said.append)
    assert best is not None
    assert capacity / 1.1 <= best.rate <= capacity
    assert len(said) == len(tried) < 16


def test_losing_a_record_or_a_late_sender_is_no_rate_kept() -> None:
    assert highest_rate(lambda _, rate: run(rate, lost=1), BASELINE, 100, limit_ms=50, say=lambda _: None)[0] is None
    late = LATE_MS + 1
    assert highest_rate(lambda _, rate: run(rate, late_ms=late), BASELINE, 100, limit_ms=50, say=lambda _: None)[0] is None


def test_a_run_with_a_late_sender_is_made_again() -> None:
    asked: list[float] = []

    def at(_: Contender, rate: float) -> Run:
        asked.append(rate)
        return run(rate, p99=5 if rate <= 1000 else 5000, late_ms=LATE_MS + 1 if asked.count(rate) == 1 else 0)

    best, tried = highest_rate(at, BASELINE, 1000, limit_ms=50, say=lambda _: None)
    assert best is not None
    assert best.rate == 1000
    assert len(tried) == len(asked) > 2


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    asked: list[str] = []

    def at(contender: Contender, rate: float) -> Run:
        asked.append(contender.name)
        return run(rate, p99=len(asked), name=contender.name)

    other = Contender("other", "", lambda *_: [])
    found = at_rate(at, [BASELINE, other], 100, rounds=2, say=lambda _: None)
    assert asked == ["other", "baseline", "baseline", "other", "other", "baseline"]
    assert [told.percentiles_ms["99"] for told in found["baseline"]] == [3, 6]


def test_the_median_leaves_void_runs_out() -> None:
    runs = [run(100, p99) for p99 in (3.0, 1.0, 2.0)] + [run(100, 0.1, late_ms=LATE_MS + 1)]
    assert median_run(runs).percentiles_ms["99"] == 2.0
    with pytest.raises(BenchFailed, match="late in every run"):
        median_run(runs[-1:])


def test_arrivals_are_those_of_the_seed_and_the_rate() -> None:
    due = Load(1000, 20, seed=3).due()
    assert len(due) == 20_000
    assert (np.diff(due) >= 0).all()
    assert due[-1] == pytest.approx(20, rel=0.03)
    assert np.diff(due).std() == pytest.approx(0.001, rel=0.05)  # exponential: as wide as its mean
    np.testing.assert_array_equal(due, Load(1000, 20, seed=3).due())
    np.testing.assert_allclose(np.diff(Load(1000, 2, "constant").due()), 0.001)


def test_results_can_be_read_again_and_tell_where_they_are_from(tmp_path: Path) -> None:
    path = tmp_path / "results" / "e2e.json"
    results.write(path, "e2e", [run(100), run(200)], note="x")
    told, runs = results.read(path)
    assert runs == [run(100), run(200)]
    assert (told["kind"], told["note"]) == ("e2e", "x")
    assert told["machine"]["cores"] >= 1
    assert {"date", "commit", "command", "versions"} <= set(json.loads(path.read_text()))
