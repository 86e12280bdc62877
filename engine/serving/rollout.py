"""Changing the model under load: one worker after another, between two batches; refused by one, it is given up by all.

newest found --> target --> asked worker by worker --> all score with it --> what new workers start with
                    ^ refused: back to what new workers start with
"""

from __future__ import annotations

import contextlib
import logging

from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.registry import Located
from saker.engine.serving.worker_process import Slot

_log = logging.getLogger("saker")


class ModelChange:
    """Which model the workers of a pool score with. The pool's only thread calls it."""

    def __init__(self, located: Located, metrics: PoolMetrics) -> None:
        self._metrics = metrics
        #: What a worker starts with, and what all of them should score with: they differ while a model changes.
        self.located = self.target = located
        self._refused: Located | None = None
        self._note()

    def step(self, slots: list[Slot], newest: Located) -> None:
        """Ask the next worker, if none is being asked. newest: what should score."""
        if any(slot.asked for slot in slots):
            return
        if self.target == self.located and newest not in (self.located, self._refused):
            self.target, self._refused = newest, None
            _log.info("changing from %s to %s", self.located.name, self.target.name)
        ready = [slot for slot in slots if slot.ready]
        behind = next((slot for slot in ready if slot.runs != self.target), None)
        if behind is not None and behind.pipe is not None:
            behind.asked = True
            with contextlib.suppress(OSError):  # it has just died
                behind.pipe.send(self.target)
        elif self.target != self.located and len(ready) == len(slots):
            self.located = self.target
            self._note()
            self._metrics.model_loaded("loaded")
            _log.info("every worker scores with %s", self.located.name)

    def taken(self, slot: Slot) -> None:
        """The worker scores with the target."""
        slot.runs, slot.asked = self.target, False

    def refuse(self, slot: Slot, reason: str) -> None:
        """The target may not serve: those that changed to it go back."""
        slot.asked = False
        if self.target == self.located:  # it cannot even go back: it starts again, with the right one
            if slot.process is not None:
                slot.process.terminate()
            return
        self._refused, self.target = self.target, self.located
        self._metrics.model_loaded("refused")
        _log.error("%s was refused, %s goes on scoring: %s", self._refused.name, self.located.name, reason)

    def _note(self) -> None:
        name, _, version = self.located.name.rpartition("/")
        self._metrics.serves(name, version, self.located.sha256)
