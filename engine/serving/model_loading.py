"""Load and verify a model for a worker: before its first record, and later in a thread while the previous model scores."""

from __future__ import annotations

import threading

from saker.engine.config import ServeSettings
from saker.engine.errors import ModelRefused, SakerError
from saker.engine.model.active_model import ActiveModel
from saker.engine.model.registry import ResolvedModel
from saker.engine.records.formats import Format
from saker.engine.serving.histories import WorkerHistories


def load(resolved: ResolvedModel, settings: ServeSettings, records: Format, histories: WorkerHistories) -> ActiveModel:
    """The proven model; raises `ModelRefused` if it is not, or not the file that the pool resolved."""
    model = ActiveModel.load(resolved.path, resolved.name, settings.kernels, records, settings.results, histories.of)
    if model.sha256 != resolved.sha256:
        raise ModelRefused(
            f"model {resolved.name}: SHA-256 of its file is {model.sha256}, expected {resolved.sha256}, as resolved"
        )
    return model


class LoadingModel(threading.Thread):
    """One model that is being loaded. Only the thread itself sets `result`, as the last thing it does."""

    def __init__(self, resolved: ResolvedModel, settings: ServeSettings, records: Format, histories: WorkerHistories) -> None:
        super().__init__(name="model-loading", daemon=True)
        self._resolved, self._settings, self._records = resolved, settings, records
        self._histories = histories
        self.result: ActiveModel | ModelRefused | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = load(self._resolved, self._settings, self._records, self._histories)
        except SakerError as error:
            self.result = error if isinstance(error, ModelRefused) else ModelRefused(str(error))
