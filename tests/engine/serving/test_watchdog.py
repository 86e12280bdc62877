"""Which workers the watchdog ends: those that are silent for too long, also while they start."""

from __future__ import annotations

import time
from typing import Any

import pytest

from saker.engine.serving.worker_process import Watchdog, WorkerProcess


class Process:
    killed = False

    def kill(self) -> None:
        self.killed = True


def worker(*, silent: float, reported: bool) -> tuple[WorkerProcess, Process]:
    process: Any = Process()
    return WorkerProcess(0, process=process, heard=time.monotonic() - silent, reported=reported), process


@pytest.mark.parametrize(
    ("silent", "reported", "killed"),
    [
        pytest.param(59, True, False, id="busy"),
        pytest.param(61, True, True, id="hangs"),
        pytest.param(61, False, False, id="starts"),
        pytest.param(301, False, True, id="hangs while it starts"),
    ],
)
def test_who_is_killed(silent: float, reported: bool, killed: bool) -> None:
    each, process = worker(silent=silent, reported=reported)
    Watchdog(60).check([each])
    assert process.killed == killed


def test_nobody_is_killed_by_a_pool_that_stood_still_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    each, process = worker(silent=61, reported=True)
    watchdog = Watchdog(60)
    later = time.monotonic() + 100
    monkeypatch.setattr(time, "monotonic", lambda: later)
    watchdog.check([each])
    assert not process.killed
