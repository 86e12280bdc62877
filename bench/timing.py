"""Contenders timed one after the other within each round, so that what else the machine does hits all alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping


def one_core() -> None:
    """Stay on the last core: the others are for whatever else runs."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def medians(contenders: Mapping[str, Callable[[], object]], seconds: float, *, at_least: int = 5) -> dict[str, float]:
    """Median CPU time of one call of each, in microseconds, over as many rounds as `seconds` have room for.

    CPU time of this thread: on a shared machine the clock on the wall measures the neighbours as well.
    """
    times: dict[str, list[int]] = {name: [] for name in contenders}
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until or rounds < at_least:
        for name, call in contenders.items():
            call()  # its caches, not its neighbour's
            started = time.thread_time_ns()
            call()
            times[name].append(time.thread_time_ns() - started)
        rounds += 1
    return {name: statistics.median(took) / 1000 for name, took in times.items()}
