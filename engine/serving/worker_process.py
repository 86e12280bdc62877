"""A worker from the view of its pool: the current process and its state. Only the main thread of the pool changes it."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from saker.engine.config import ServeSettings
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.model.registry import ResolvedModel
from saker.engine.serving import worker
from saker.engine.serving.messages import ChangeModel, ToWorker
from saker.engine.serving.poison_records import SuspectRecords

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_SHORT_LIFE = 5.0
_START_SECONDS = 300.0  # for the proof of a large model, and for transactions that an earlier worker left open
_LONGEST_PAUSE = 5.0


@dataclass
class WorkerProcess:
    """Keeps its number, and with it its name in the group, through every restart."""

    number: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    started: float = 0.0
    ready: bool = False
    #: Of the input, that it reads.
    partitions: frozenset[int] = frozenset()
    #: Of these, how many wait for a schema.
    waiting: int = 0
    #: And how many of their histories are being recovered.
    replaying: int = 0
    #: What it scores with; and whether it was asked to change to another.
    runs: ResolvedModel | None = None
    asked: bool = False
    fenced: float = -math.inf
    short_lives: int = 0
    #: When it last reported, or was started; and whether it has reported since.
    heard: float = 0.0
    reported: bool = False
    marker: InFlightMarker = field(default_factory=InFlightMarker)
    start_at: float = field(default_factory=time.monotonic)

    def start(self, settings: ServeSettings, resolved: ResolvedModel, suspects: SuspectRecords) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.runs, self.asked = resolved, False
        self.process = _SPAWN.Process(
            target=worker.main,
            args=(self.number, settings, resolved, theirs, self.marker, suspects),
            name=f"saker-worker-{self.number}",
        )
        self.process.start()
        theirs.close()
        self.started = self.heard = time.monotonic()
        self.reported = False

    def hear(self) -> None:
        self.heard, self.reported = time.monotonic(), True

    def ask(self, model: ResolvedModel) -> None:
        """To change to this model; `uses` or `keeps` is its answer."""
        self.asked = True
        self.tell(ChangeModel(model))

    def tell(self, message: ToWorker) -> None:
        with contextlib.suppress(OSError):  # it has just died
            if self.pipe is not None:
                self.pipe.send(message)

    def uses(self, model: ResolvedModel) -> None:
        self.runs, self.asked = model, False

    def keeps(self) -> None:
        self.asked = False

    def on_exit(self, *, explained: bool) -> None:
        """The process has ended. The first restart is immediate; repeated deaths wait longer each time.

        explained: the cause is known and will not occur again.
        """
        self.process, self.pipe, self.ready, self.partitions = None, None, False, frozenset()
        self.waiting = self.replaying = 0
        self.marker.done()
        lived = time.monotonic() - self.started
        self.short_lives = self.short_lives + 1 if lived < _SHORT_LIFE and not explained else 0
        pause = min(0.1 * 2**self.short_lives, _LONGEST_PAUSE) if self.short_lives > 1 else 0.0
        self.start_at = time.monotonic() + pause


class Watchdog:
    """Kills workers that have not reported for too long; they are restarted like any that died."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._checked = time.monotonic()

    def check(self, workers: list[WorkerProcess]) -> None:
        """Called every pass of the pool's loop, after the messages of the workers were read."""
        now = time.monotonic()
        stood_still, self._checked = now - self._checked > self._seconds / 2, now
        for each in workers:
            if stood_still:  # this process itself did, so perhaps all of them
                each.heard = now
            allowed = self._seconds if each.reported else max(self._seconds, _START_SECONDS)
            if each.process is not None and now - each.heard > allowed:
                _log.error("worker %d has reported nothing for %.0f s: killing it", each.number, now - each.heard)
                each.process.kill()
                each.heard = now
