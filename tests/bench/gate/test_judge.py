"""The gate fails for what is slower beyond doubt, and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from saker.bench.gate.judge import Figure, confirmed, judge


def figure(*, noise: float, slower: float = 1.0, rounds: int = 9, seed: int = 0) -> Figure:
    rng = np.random.default_rng(seed)
    base, again, head = 20 * np.exp(noise * rng.normal(size=(3, rounds)))
    return Figure("pipeline", "cpu_us", base.tolist(), again.tolist(), (head * slower).tolist())


def test_five_percent_more_is_caught_where_the_machine_is_quiet() -> None:
    assert not any(judge(figure(noise=0.01, slower=1.05, seed=seed)).passed for seed in range(50))


def test_what_lies_within_the_noise_is_not() -> None:
    """At 10 % from round to round nobody can tell 5 %."""
    assert sum(judge(figure(noise=0.1, slower=1.05, seed=seed)).passed for seed in range(50)) >= 45


@pytest.mark.parametrize("noise", [0.002, 0.02, 0.2])
def test_the_same_against_itself_passes(noise: float) -> None:
    assert all(judge(figure(noise=noise, seed=seed)).passed for seed in range(200))


def test_faster_passes_and_the_verdict_says_how_much() -> None:
    verdict = judge(figure(noise=0.01, slower=0.5))
    assert verdict.passed
    assert verdict.low <= verdict.ratio <= verdict.high
    assert verdict.ratio == pytest.approx(0.5, rel=0.03)
    assert verdict.allowed >= 1
    assert str(verdict).startswith("passed  pipeline, cpu_us: base 2")


def test_one_slow_round_of_the_base_excuses_nothing() -> None:
    told = figure(noise=0.01, slower=1.2)
    told = Figure(told.stage, told.name, [*told.base[:-1], 200.0], [*told.again[:-1], 200.0], [*told.head[:-1], 240.0])
    assert not judge(told).passed


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (([1.0, 1.0], [1.0, 1.0], [1.0, 1.0]), "three rounds or more of each, got 2, 2, 2"),
        (([1.0] * 3, [1.0] * 3, [1.0] * 4), "got 3, 3, 4"),
        (([1.0] * 3, [1.0, 0.0, 1.0], [1.0] * 3), "expected figures above 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(sides: tuple[list[float], list[float], list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(Figure("pipeline", "cpu_us", *sides))


@pytest.mark.parametrize(
    ("measurements", "passed", "used"),
    [
        pytest.param([[1.0, 1.0]], [True, True], 1, id="no doubt, no second measurement"),
        pytest.param([[1.5, 1.0], [1.0, 1.5]], [True, True], 2, id="slower by chance, another one each time"),
        pytest.param([[1.5, 1.0], [1.5, 1.0]], [False, True], 2, id="slower"),
    ],
)
def test_what_is_slower_is_measured_once_more(measurements: list[list[float]], passed: list[bool], used: int) -> None:
    left, said = iter(measurements), list[str]()
    verdicts = confirmed(lambda: [figure(noise=0.01, slower=slower) for slower in next(left)], said.append)
    assert [verdict.passed for verdict in verdicts] == passed
    assert len(measurements) - len(list(left)) == used
    assert len(said) == used - 1
