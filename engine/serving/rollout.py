"""Change the model under load: one worker after another, between two batches; if one rejects it, all go back.

newest found --> target --> asked worker by worker --> all score with it --> what new workers start with
                    ^ rejected: back to what new workers start with
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.registry import ResolvedModel
from saker.engine.serving.worker_process import WorkerProcess

_log = logging.getLogger("saker")


def _opened(path: Path) -> BinaryIO | None:
    """Whatever becomes of its name, the file is there as long as it is open."""
    with contextlib.suppress(OSError):
        return path.open("rb")
    return None


class Rollout:
    """Which model the workers of a pool score with. The pool's only thread calls it."""

    def __init__(self, resolved: ResolvedModel, metrics: PoolMetrics) -> None:
        self._metrics = metrics
        #: What a worker starts with, and what all of them should score with: they differ while a model changes.
        self.resolved = self.target = resolved
        self._file = _opened(resolved.path)
        self._rejected: ResolvedModel | None = None
        self._note()

    def advance(self, workers: list[WorkerProcess], newest: ResolvedModel) -> None:
        """Ask the next worker, if none is being asked. newest: what should score."""
        if any(worker.asked for worker in workers):
            return
        if self.target == self.resolved and newest not in (self.resolved, self._rejected):
            self.target, self._rejected = newest, None
            _log.info("changing the model from %s to %s", self.resolved.name, self.target.name)
        ready = [worker for worker in workers if worker.ready]
        behind = next((worker for worker in ready if worker.runs != self.target), None)
        if behind is not None:
            behind.ask(self.target)
        elif self.target != self.resolved and len(ready) == len(workers):
            self.resolved = self.target
            self._file = _opened(self.resolved.path)
            self._note()
            self._metrics.model_loaded("loaded")
            _log.info("all workers score with %s", self.resolved.name)

    def restore(self) -> None:
        """Put the model back where workers read it, if somebody has emptied the cache; raises OSError where that cannot be."""
        path = self.resolved.path
        if self._file is None or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            copy = Path(scratch) / path.name
            with copy.open("wb") as to:
                self._file.seek(0)
                shutil.copyfileobj(self._file, to)
            copy.replace(path)

    def changed(self, worker: WorkerProcess) -> None:
        """The worker scores with the target."""
        worker.uses(self.target)

    def reject(self, worker: WorkerProcess, reason: str) -> None:
        """The target may not serve: those that changed to it go back."""
        worker.keeps()
        if self.target == self.resolved:  # it cannot even go back: it starts again, with the right one
            if worker.process is not None:
                worker.process.terminate()
            return
        self._rejected, self.target = self.target, self.resolved
        self._metrics.model_loaded("refused")
        _log.error("%s was rejected, %s keeps scoring: %s", self._rejected.name, self.resolved.name, reason)

    def _note(self) -> None:
        name, _, version = self.resolved.name.rpartition("/")
        self._metrics.serves(name, version, self.resolved.sha256)
