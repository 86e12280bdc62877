"""Measure what the tree kernel's constants stand for, on this machine: `saker bench trees S M --calibrate`.

A call of few rows goes the way that native/trees/plan_type.c takes for the cheapest: in a block, in lanes (AVX-512) or walked
row by row. `choose_limits` there compares them in steps of a walk, by constants of each variant. Here every way is timed for
every number of rows, and the constants are what fits the times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from saker.bench.data.reference_models import reference_model
from saker.bench.micro.runner import one_core
from saker.bench.micro.trees import extension
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.tree_kernel import TreeKernel

_ROWS = (1, 2, 4, 8, 12, 16, 24, 31)
_ALWAYS = 2**31 - 1
_WAYS = {
    "block": {"walk_limit": 0, "lanes_limit": 0},
    "lanes": {"walk_limit": 0, "lanes_limit": _ALWAYS},
    "walked": {"walk_limit": _ALWAYS, "lanes_limit": 0},
}
_SECONDS = 0.05


class Timed(NamedTuple):
    """Median us of a call by rows and way, and what the plan chooses."""

    model: str
    us: dict[tuple[int, str], float]
    chosen: dict[int, str]
    test: float
    lane_step: float | None

    def lines(self) -> Iterator[str]:
        yield f"{self.model}: µs per call, * for the algorithm that the kernel chooses"
        ways = sorted({way for _, way in self.us})
        for rows in _ROWS:
            marks = {way: "*" if self.chosen[rows] == way else " " for way in ways}
            yield f"  {rows:2} rows  " + "  ".join(f"{way} {self.us[rows, way]:8.2f}{marks[way]}" for way in ways)
        lost = {rows: self.us[rows, self.chosen[rows]] / min(self.us[rows, way] for way in ways) - 1 for rows in _ROWS}
        worst = max(lost, key=lambda rows: lost[rows])
        yield f"  the choice costs at most {lost[worst]:.0%} ({worst} rows)"


def calibrate(models: Sequence[str]) -> Iterator[str]:
    """Lines of a report for each variant that this processor runs, the fastest first."""
    one_core()
    for variant in extension().variants():
        yield f"{variant}:"
        timed = [_time(name, variant) for name in models]
        for one in timed:
            yield from one.lines()
        test = float(np.median([one.test for one in timed]))
        yield f'set in the table `variants` of native/trees/plan_type.c, line "{variant}": test = {test:.2f}'
        if lane_steps := [one.lane_step for one in timed if one.lane_step is not None]:
            yield f"  and lane_step = {float(np.median(lane_steps)):.2f}"


def _time(name: str, variant: str) -> Timed:
    model = reference_model(name)
    ensemble, columns = ensemble_of(read_graph(model.onnx))
    kernels = {way: TreeKernel(extension(), ensemble, columns, variant, **limits) for way, limits in _WAYS.items()}
    chosen = TreeKernel(extension(), ensemble, columns, variant)
    tests, walk_steps, lane_steps, _ = chosen.plan.costs
    if not lane_steps:
        del kernels["lanes"]
    us = {(rows, way): _median_us(kernel, model.rows, rows) for rows in _ROWS for way, kernel in kernels.items()}
    ways = chosen.ways

    def choice(rows: int) -> str:
        return "walked" if rows <= ways["walked"] else "lanes" if rows <= ways["lanes"] and lane_steps else "block"

    step = us[_ROWS[-1], "walked"] / _ROWS[-1] / walk_steps  # the unit of all constants
    per_lane_row = (us[24, "lanes"] - us[8, "lanes"]) / 16 if lane_steps else None
    return Timed(
        f"{name}, {variant}",
        us,
        {rows: choice(rows) for rows in _ROWS},
        us[_ROWS[-1], "block"] / tests / step,
        None if per_lane_row is None else per_lane_row / lane_steps / step,
    )


def _median_us(kernel: TreeKernel, rows: np.ndarray, batch: int) -> float:
    """With other rows each time: of the same ones a processor learns a walk's branches by heart."""
    batches = [np.ascontiguousarray(rows[at : at + batch]) for at in range(0, len(rows) - batch + 1, batch)]
    times, number, until = [], 0, time.monotonic() + _SECONDS
    while time.monotonic() < until:
        started = time.perf_counter_ns()
        kernel.score(batches[number % len(batches)])
        times.append(time.perf_counter_ns() - started)
        number += 1
    return float(np.median(times)) / 1000
