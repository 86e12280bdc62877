"""Which model should score, checked every few seconds by a thread of the parent.

registry or file --locate--> ModelWatcher.newest --> Pool --> one worker after another
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from saker.engine.errors import ModelRefused, SakerError
from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.registry import NoSuchModel, RegistryUnreachable, ResolvedModel
from saker.engine.model.trial import try_model

_log = logging.getLogger("saker")


def every(
    seconds: float,
    name: str,
    check: Callable[[], None],
    stop: threading.Event,
    failed: Callable[[], None],
    *,
    at_once: bool = False,
) -> None:
    """Call `check` every `seconds` in a separate thread until `stop` is set, whatever it raises.

    name: what is checked. failed: called after an unexpected error.
    """

    def run() -> None:
        told, wait = "", 0.0 if at_once else seconds
        while not stop.wait(wait):
            wait = seconds
            try:
                check()
            except Exception as error:  # noqa: BLE001 - no one would notice that the thread ended
                failed()
                if repr(error) != told:
                    _log.exception("the check of the %s failed; checking again every %.0f s", name, seconds)
                told = repr(error)

    threading.Thread(target=run, name=f"check-{name}", daemon=True).start()


class ModelWatcher:
    """`newest` is the last model that was found and may serve; only `check` changes it."""

    def __init__(
        self,
        locate: Callable[[], ResolvedModel],
        served: ResolvedModel,
        metrics: PoolMetrics,
        wake: Callable[[], None],
        warm_up: Callable[[ResolvedModel, ResolvedModel], None],
        kernels: str | None = None,
    ) -> None:
        """locate: finds the model, or raises `ModelRefused`. wake: called when `newest` changed. warm_up: prepares the change
        from one model to another, however long that takes; raises `ModelRefused`.
        """
        self._locate, self._metrics, self._wake, self._kernels = locate, metrics, wake, kernels
        self._warm_up = warm_up
        self._told = ""
        self._refused: tuple[ResolvedModel, str] | None = None
        self.newest = served

    def check(self) -> None:
        """Whatever goes wrong here, running pools keep their model."""
        try:
            self._check()
        finally:
            self._metrics.model_checked()

    def _check(self) -> None:
        try:
            found = self._locate()
            self._try(found)
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
        except SakerError as error:  # its history cannot be read now
            self._metrics.model_found(True)
            self._say(error)
        else:
            self._told = ""
            self._metrics.model_found(True)
            if found != self.newest:
                self.newest = found
                self._wake()

    def _try(self, found: ResolvedModel) -> None:
        """Open it in a separate process, once."""
        if found == self.newest:
            return
        if self._refused is not None and self._refused[0] == found:
            raise ModelRefused(self._refused[1])
        try:
            try_model(found.path, found.name, self._kernels)
            self._warm_up(self.newest, found)
        except ModelRefused as error:
            self._refused = found, str(error)
            raise

    def _say(self, error: Exception) -> None:
        """Once for each reason, not at every check."""
        if str(error) != self._told:
            self._told = str(error)
            _log.warning("%s; running pools keep their model", error)
