"""Runs in turns at one rate, and the highest rate that a contender keeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from saker.bench.harness.contenders import BenchFailed, Contender
from saker.bench.harness.e2e import Run, measure
from saker.bench.harness.open_loop import Load

RunAt = Callable[[Contender, float], Run]
Say = Callable[[object], None]
_LOWEST = 10.0  # records/s


def runner(bootstrap_servers: str, *, seconds: float, warm_up_seconds: float, workers: int, arrivals: str = "poisson") -> RunAt:
    """Runs of a contender at a rate, each with another seed and separate topics."""
    numbers = itertools.count()

    def run(contender: Contender, rate: float) -> Run:
        number = next(numbers)
        load = Load(rate, seconds, arrivals, seed=number)
        return measure(contender, bootstrap_servers, load, workers=workers, number=number, warm_up_seconds=warm_up_seconds)

    return run


def at_rate(
    run: RunAt, contenders: Sequence[Contender], rate: float, rounds: int, say: Say, dropped: int = 1
) -> dict[str, list[Run]]:
    """Rounds in which the contenders take turns, in the other order each time: a broker gets faster while it runs, so whoever
    were always first would look slow. dropped: rounds in front that do not count, since a new broker compiles.
    """
    found: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for number in range(-dropped, rounds):
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            told = run(contender, rate)
            say(told if number >= 0 else f"(not counted) {told}")
            if number >= 0:
                found[contender.name].append(told)
    return found


def highest_rate(
    run: RunAt, contender: Contender, first: float, limit_ms: float, say: Say, closeness: float = 1.1
) -> tuple[Run | None, list[Run]]:
    """The run at the highest rate that keeps p99 under `limit_ms` with nothing lost or wrong, if any does; and all the runs.

    Doubles from `first`, or halves, and then bisects until two neighbours are within `closeness`. A void run is repeated,
    once.
    """
    runs: list[Run] = []

    def passes(rate: float) -> bool:
        runs.append(run(contender, rate))
        if runs[-1].void:
            say(f"{runs[-1]}: repeated")
            runs.append(run(contender, rate))
        good = kept(runs[-1], limit_ms)
        say(f"{runs[-1]}: {'kept' if good else 'not kept'}")
        return good

    low = high = first
    if passes(first):
        while passes(high := 2 * high):
            low = high
    else:
        while not passes(low := low / 2):
            high = low
            if low < _LOWEST:
                return None, runs
    while high / low > closeness:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if passes(middle) else (low, middle)
    return max((told for told in runs if kept(told, limit_ms)), key=lambda told: told.rate), runs


def kept(run: Run, limit_ms: float) -> bool:
    """Nothing lost, nothing wrong, and p99 within the limit."""
    return run.whole and not run.void and run.percentiles_ms["99"] <= limit_ms


def median_run(runs: Iterable[Run]) -> Run:
    """The run with the median p99 of those that are not void; raises `BenchFailed` when all are."""
    valid = sorted((run for run in runs if not run.void), key=lambda run: run.percentiles_ms["99"])
    if not valid:
        raise BenchFailed("the sender was late in every run: use a lower rate, or a machine with more cores")
    return valid[len(valid) // 2]
