"""Stages without a broker, timed by pytest-benchmark: CPU time of one thread on one core, references in the same run.

    saker bench trees|rows|pipeline --> run() --> pytest bench/time_stages.py --> cases() of bench.trees, .rows, .pipeline

CPU time: on a shared machine the clock on the wall measures the neighbours as well.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import SakerError

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
    found: Iterable[Case] = importlib.import_module(f"bench.{stage}").cases(**arguments)
    return found


def run(stage: str, arguments: dict[str, Any], seconds: float, output: Path | None) -> Iterator[str]:
    """Time the cases of a stage; the lines to show. output: pytest-benchmark's own JSON, which its `compare` takes."""
    import pytest

    os.environ[_ASKED] = json.dumps([stage, arguments])
    with tempfile.TemporaryDirectory() as scratch:
        path = output or Path(scratch) / "benchmark.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        code = pytest.main(
            [
                str(_FILE),
                "--quiet",
                "--no-header",
                "--no-summary",
                "--override-ini=addopts=",
                "-p",
                "no:cacheprovider",
                "--benchmark-timer=time.thread_time",
                "--benchmark-quiet",
                "--benchmark-warmup=on",
                f"--benchmark-max-time={seconds}",
                f"--benchmark-json={path}",
            ]
        )
        if code:
            raise StagesFailed(f"pytest ended with exit code {int(code)}; what failed stands above")
        timed = json.loads(path.read_text())["benchmarks"]
    groups: dict[str, list[Any]] = {}
    for told in timed:
        groups.setdefault(told["group"], []).append(told)
    for group, members in groups.items():
        yield f"{group}, us of CPU a record (median), and times the first:"
        first = members[0]["stats"]["median"]
        for told in members:
            info, median = told["extra_info"], told["stats"]["median"]
            parts = ", ".join(f"{stage} {us:.1f}" for stage, us in info["stages_us"].items())
            a_call = f"{median * 1e6:.1f} us a call"
            line = f"  {info['who']:14} {median * 1e6 / info['records']:9.3f}  {median / first:6.2f}  {a_call}"
            yield line + (f": {parts}" if parts else "")
