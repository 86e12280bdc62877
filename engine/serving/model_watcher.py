"""Which model should score, checked every few seconds by a thread of the parent.

registry or file --locate--> ModelWatcher.newest --> Pool --> one worker after another
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from saker.engine.errors import ModelRefused
from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.registry import NoSuchModel, RegistryUnreachable, ResolvedModel

_log = logging.getLogger("saker")


def every(seconds: float, check: Callable[[], None], stop: threading.Event) -> None:
    """Call `check` every `seconds` in a thread of its own until `stop` is set."""

    def run() -> None:
        while not stop.wait(seconds):
            check()

    threading.Thread(target=run, name=check.__name__, daemon=True).start()


class ModelWatcher:
    """`newest` is the last model found, and the one that is served until then; only `check` changes it."""

    def __init__(
        self, locate: Callable[[], ResolvedModel], served: ResolvedModel, metrics: PoolMetrics, wake: Callable[[], None]
    ) -> None:
        """locate: finds the model, or raises `ModelRefused`. wake: called when `newest` changed."""
        self._locate, self._metrics, self._wake = locate, metrics, wake
        self._told = ""
        self.newest = served

    def check(self) -> None:
        """Whatever goes wrong here, running pools keep their model."""
        try:
            found = self._locate()
        except NoSuchModel as error:
            self._metrics.model_found(False)
            self._say(error)
        except RegistryUnreachable as error:
            self._say(error)
        except ModelRefused as error:
            if str(error) != self._told:
                self._metrics.model_loaded("refused")
            self._metrics.model_found(True)
            self._say(error)
        else:
            self._told = ""
            self._metrics.model_found(True)
            if found != self.newest:
                self.newest = found
                self._wake()

    def _say(self, error: Exception) -> None:
        """Once for each reason, not at every check."""
        if str(error) != self._told:
            self._told = str(error)
            _log.warning("%s; running pools keep their model", error)
