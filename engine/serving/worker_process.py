"""A worker's place in the pool: the process that has it now, and what is known of it. The pool's only thread changes it."""

from __future__ import annotations

import logging
import math
import multiprocessing
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from saker.engine.config import ServeSettings
from saker.engine.model.registry import Located
from saker.engine.serving import worker
from saker.engine.serving.poison_records import Journal, Suspects

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_SHORT_LIFE = 5.0
_LONGEST_PAUSE = 5.0


@dataclass
class Slot:
    """It keeps its number, so its worker's name in the group, through every restart."""

    number: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    started: float = 0.0
    ready: bool = False
    #: What it scores with; and whether it was asked to change to another.
    runs: Located | None = None
    asked: bool = False
    fenced: float = -math.inf
    short_lives: int = 0
    #: When it last told something.
    heard: float = 0.0
    journal: Journal = field(default_factory=Journal)
    start_at: float = field(default_factory=time.monotonic)

    def start(self, settings: ServeSettings, located: Located, suspects: Suspects) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.runs, self.asked = located, False
        self.process = _SPAWN.Process(
            target=worker.main,
            args=(self.number, settings, located, theirs, self.journal, suspects),
            name=f"saker-worker-{self.number}",
        )
        self.process.start()
        theirs.close()
        self.started = self.heard = time.monotonic()

    def bury(self, *, explained: bool) -> None:
        """Its process has ended. The first restart is immediate; one that keeps dying waits longer each time.

        explained: what it died of is known, and will not be met again.
        """
        self.process, self.pipe, self.ready = None, None, False
        self.journal.done()
        lived = time.monotonic() - self.started
        self.short_lives = self.short_lives + 1 if lived < _SHORT_LIFE and not explained else 0
        pause = min(0.1 * 2**self.short_lives, _LONGEST_PAUSE) if self.short_lives > 1 else 0.0
        self.start_at = time.monotonic() + pause


class Watchdog:
    """Kills workers that have not told anything for too long; they are started again like any that died."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._looked = time.monotonic()

    def look(self, slots: list[Slot]) -> None:
        """Called again and again, after what the workers told has been read."""
        now = time.monotonic()
        stood_still, self._looked = now - self._looked > self._seconds / 2, now
        for slot in slots:
            if stood_still:  # this process itself did, so perhaps all of them
                slot.heard = now
            if slot.process is not None and slot.ready and now - slot.heard > self._seconds:
                _log.error("worker %d has told nothing for %.0f s: killing it", slot.number, now - slot.heard)
                slot.process.kill()
                slot.heard = now
