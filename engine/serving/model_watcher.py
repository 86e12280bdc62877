"""Which model should score, asked for again and again: a thread of the parent looks, the pool takes what it finds.

registry or file --locate--> Follower.newest --> Pool --> one worker after another
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from saker.engine.errors import ModelRefused
from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.registry import Located, NoSuchModel, RegistryUnreachable

_log = logging.getLogger("saker")


def every(seconds: float, look: Callable[[], None], stop: threading.Event) -> None:
    """Call `look` in a thread of its own, again and again, until `stop` is set."""

    def run() -> None:
        while not stop.wait(seconds):
            look()

    threading.Thread(target=run, name=look.__name__, daemon=True).start()


class Follower:
    """`newest` is the last model found, and the one that is served until then; only `look` changes it."""

    def __init__(self, locate: Callable[[], Located], served: Located, metrics: PoolMetrics, wake: Callable[[], None]) -> None:
        """locate: finds the model, or raises `ModelRefused`. wake: called when `newest` changed."""
        self._locate, self._metrics, self._wake = locate, metrics, wake
        self._told = ""
        self.newest = served

    def look(self) -> None:
        """Whatever goes wrong here, the model that is loaded goes on scoring."""
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
        """Once for each reason, not at every look."""
        if str(error) != self._told:
            self._told = str(error)
            _log.warning("%s; the model that is loaded goes on scoring", error)
