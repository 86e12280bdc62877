"""What `saker monitor` looks at: drift of the newest live records, and the models on those whose label has come."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bench.collect import read_last, read_newest
from engine import config, registry
from engine.errors import SakerError
from engine.metrics import family
from engine.pipeline import ActiveModel, score_batch
from training.drift import drift
from training.live import Live, judge


@dataclass(eq=False)  # a collector is known by its identity
class Watch(Collector):
    """A collector of prometheus_client: what the last look found. Its thread is the only one that changes it."""

    bootstrap_servers: str
    models: tuple[str, str | None]
    topics: tuple[str, str, str | None]
    label: str
    last: int
    tracking_uri: str | None
    at: float = 0.0
    psi: dict[str, float] = field(default_factory=dict)
    records: int = 0
    labelled: int = 0
    live: dict[str, Live] = field(default_factory=dict)

    def look(self) -> None:
        """Raises `SakerError` where there is nothing to look at."""
        champion = self._model(self.models[0])
        contract = champion.session.contract
        source, scored, labels = self.topics
        records, results = read_newest(self.bootstrap_servers, source, scored, self.last)
        if not results:
            raise SakerError(f"{scored} at {self.bootstrap_servers} has no scores to look at")
        values = [record.value for record in records]
        matrix = champion.decoder.decode(values).matrix
        scores = np.array([orjson.loads(result.value or b"")["fraud_score"] for result in results], np.float64)
        self.psi = {one.name: one.psi for one in drift(contract, matrix, scores) if one.judged}
        self.records = len(matrix)

        known = self._labels(labels, contract.id_field) if labels else {}
        live = {}
        for alias, name in zip(("champion", "challenger"), self.models, strict=True):
            if name is not None and known:
                model = champion if alias == "champion" else self._model(name)
                truth, found = _labelled(model, values, known)
                self.labelled = len(truth)
                if len(truth):
                    live[alias] = judge(truth, found, model.session.contract.threshold)
        self.live = live
        self.at = time.time()

    def _model(self, name: str) -> ActiveModel:
        located = registry.locate(name, self.tracking_uri or config.tracking_uri())
        return ActiveModel.load(located.path, located.name)

    def _labels(self, topic: str, id_field: str) -> dict[str, int]:
        """By identifier. A record that is no label is not one."""
        known: dict[str, int] = {}
        for record in read_last(self.bootstrap_servers, topic, self.last):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = orjson.loads(record.value or b"")
                known[str(told[id_field])] = int(told[self.label])
        return known

    def collect(self) -> Iterator[Metric]:
        yield family("drift_psi", [((name,), psi) for name, psi in self.psi.items()])
        yield family("drift_records", [((), self.records)])
        yield family("live_labelled_records", [((), self.labelled)])
        for figure in ("precision", "recall", "roc_auc"):
            told = {alias: getattr(judged, figure) for alias, judged in self.live.items()}
            yield family(f"live_{figure}", [((alias,), value) for alias, value in told.items() if not math.isnan(value)])
        yield family("monitor_last_success_timestamp_seconds", [((), self.at)] if self.at else [])


def _labelled(
    model: ActiveModel, values: list[bytes | None], known: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores (n,) of the records whose label is known."""
    answers = [orjson.loads(answer) for answer in score_batch(model, values).results]
    of = model.session.contract.id_field
    pairs = [(label, answer["fraud_score"]) for answer in answers if (label := known.get(str(answer[of]))) is not None]
    return np.array([label for label, _ in pairs], np.int64), np.array([score for _, score in pairs], np.float64)
