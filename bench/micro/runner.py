"""Stages without a broker, timed by pytest-benchmark: CPU time of one thread on one core, references in the same run.

    saker bench trees|rows|pipeline --> run() --> pytest time_stages.py --> cases() of trees.py, rows.py, pipeline.py

CPU time: on a shared machine the clock on the wall measures the neighbours as well.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saker.bench.harness.results import about
from saker.engine.errors import SakerError

_ASKED = "SAKER_BENCH"
_FILE = Path(__file__).with_name("time_stages.py")


class StagesFailed(SakerError):
    """pytest did not come to its end."""


@dataclass(frozen=True, slots=True)
class Case:
    """One contender of a group; `call` works through `records` records. stages_us: of the parts of a call, if it has some."""

    group: str
    who: str
    call: Callable[[], object]
    records: int
    stages_us: dict[str, float] = field(default_factory=dict)


def one_core() -> None:
    """Stay on the last core: the others are for whatever else runs."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def asked() -> Iterable[Case]:
    """What `run` asked for, in the process of pytest."""
    stage, arguments = json.loads(os.environ[_ASKED])
    found: Iterable[Case] = importlib.import_module(f"saker.bench.micro.{stage}").cases(**arguments)
    return found


@dataclass(frozen=True, slots=True)
class Timed:
    """A timed case: median CPU time per call and per record, in µs."""

    group: str
    who: str
    call_us: float
    record_us: float
    stages_us: dict[str, float]


def run(stage: str, arguments: dict[str, Any], seconds: float, output: Path | None = None) -> list[Timed]:
    """Time the cases of a stage. output: pytest-benchmark's own JSON, which its `compare` takes. Raises `StagesFailed`."""
    import pytest

    os.environ[_ASKED] = json.dumps([stage, arguments])
    os.environ.pop("PYTEST_XDIST_WORKER", None)  # in a test of this that runs in parallel: pytest-benchmark would time nothing
    with tempfile.TemporaryDirectory() as scratch:
        path = output or Path(scratch) / "benchmark.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-header", "--no-summary", "--override-ini=addopts=", "-p", "no:cacheprovider"]
        options += ["--benchmark-timer=time.thread_time", "--benchmark-quiet", f"--benchmark-json={path}"]
        # The timer is a system call: with one call per round, 0.6 µs of it (measured, Zen 4) would be added to the result.
        options += ["--benchmark-min-time=0.0001"]
        options += ["--benchmark-warmup=on", "--benchmark-warmup-iterations=200", f"--benchmark-max-time={seconds}"]
        with contextlib.redirect_stdout(sys.stderr):
            code = pytest.main([str(_FILE), *options])
        if code:
            raise StagesFailed(f"pytest ended with exit code {int(code)}; see the failures above")
        written = json.loads(path.read_text())
        timed = written["benchmarks"]
        if output:
            # The head of saker's results, and no host name: these files go into the repository.
            cpu = {"brand_raw": written["machine_info"].get("cpu", {}).get("brand_raw", "")}
            written["machine_info"] |= {"node": "", "cpu": cpu}
            for one in timed:
                del one["params"], one["stats"]["data"]  # the rows themselves, and every round: megabytes
            output.write_text(json.dumps(about(stage) | written, indent=1) + "\n")
    found = []
    for told in timed:
        info, median_us = told["extra_info"], told["stats"]["median"] * 1e6
        found.append(Timed(told["group"], info["who"], median_us, median_us / info["records"], info["stages_us"]))
    return found


def lines(timed: Iterable[Timed]) -> Iterator[str]:
    """A table per group, each contender compared with the first."""
    for group, of in itertools.groupby(timed, lambda told: told.group):
        members = list(of)
        yield f"{group}, µs of CPU per record (median), and multiple of the first:"
        for told in members:
            parts = ", ".join(f"{stage} {us:.1f}" for stage, us in told.stages_us.items())
            times = told.call_us / members[0].call_us
            line = f"  {told.who:16} {told.record_us:9.3f}  {times:6.2f}  {told.call_us:.1f} µs per call"
            yield line + (f": {parts}" if parts else "")


def over_budget(timed: Sequence[Timed], budget_us: float | None, budget_ratio: float | None) -> list[str]:
    """Violations of the budgets by the first case: µs of CPU per record, or the multiple of the second case."""
    first, *others = (told for told in timed if told.group == timed[0].group)
    reasons = []
    if budget_us is not None and first.record_us > budget_us:
        reasons.append(
            f"{first.who} takes {first.record_us:.2f} µs of CPU per record, allowed are {budget_us:g} ({first.group})"
        )
    if budget_ratio is not None and others and first.record_us > budget_ratio * others[0].record_us:
        times = f"{first.record_us / others[0].record_us:.2f} times as long as {others[0].who}"
        reasons.append(f"{first.who} takes {times}, allowed are {budget_ratio:g} ({first.group})")
    return reasons
