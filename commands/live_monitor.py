"""The data of `saker drift` and `saker monitor`: the newest live records, and the models on those with a known label."""

from __future__ import annotations

import contextlib
import json  # which reads an identifier of 1e999, too; orjson does not
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from saker.engine import config
from saker.engine.contract import Contract, read_contract
from saker.engine.errors import SakerError
from saker.engine.kafka.reader import RecordsRead, read_last, read_newest
from saker.engine.metrics.declared import family
from saker.engine.model import registry
from saker.engine.model.active_model import ActiveModel
from saker.engine.model.registry import ResolvedModel
from saker.engine.records.decode import Decoder, History
from saker.engine.records.encode import NotAResult, read_result
from saker.engine.records.formats import JSON, Format
from saker.engine.serving.catch_up import history_before
from saker.training.drift import drift
from saker.training.live_figures import Live, judge


class Newest(NamedTuple):
    """The newest scores (m,) in a topic, their transactions as they came, and as rows (n, f) of the model."""

    values: RecordsRead
    matrix: NDArray[np.float32]
    scores: NDArray[np.float64]


def read(bootstrap_servers: str, contract: Contract, source: str, scored: str, last: int, of: Format = JSON) -> Newest:
    """of: how the records are written. Raises `SakerError` if there are none."""
    records, results = read_newest(bootstrap_servers, source, scored, last)
    values = RecordsRead(records)
    history = history_before(bootstrap_servers, source, contract, values.starts, of)
    matrix = Decoder(contract, of=of, history=history).decode(values).matrix
    scores = np.array([score for result in results if (score := _score_of(result.value)) is not None], np.float64)
    if not len(scores) or not len(matrix):
        raise SakerError(f"{scored} at {bootstrap_servers} contains no scores")
    return Newest(values, matrix, scores)


def _score_of(result: bytes | None) -> float | None:
    """None where it is no result."""
    with contextlib.suppress(NotAResult):
        return read_result(result).fraud_score
    return None


@dataclass(eq=False)  # a collector is known by its identity
class Watch(Collector):
    """A collector for prometheus_client with the last evaluation. Only the evaluating thread changes it."""

    bootstrap_servers: str
    #: champion and challenger.
    models: Mapping[str, str | None]
    topics: tuple[str, str, str | None]
    label: str
    last: int
    tracking_uri: str | None
    records_format: Format = JSON
    at: float = 0.0
    psi: dict[str, float] = field(default_factory=dict)
    records: int = 0
    labelled: int = 0
    live: dict[str, Live] = field(default_factory=dict)

    def check(self) -> None:
        """Evaluate once; raises `SakerError` if there is nothing to evaluate."""
        source, scored, topic = self.topics
        located = {alias: self._located(name) for alias, name in self.models.items() if name is not None}
        contract = read_contract(located["champion"].path)
        newest = read(self.bootstrap_servers, contract, source, scored, self.last, self.records_format)
        self.psi = {one.name: one.psi for one in drift(contract, newest.matrix, newest.scores) if one.judged}
        self.records = len(newest.matrix)
        known = self._labels(topic, contract.id_field) if topic else {}
        models = {alias: self._model(of, newest.values) for alias, of in located.items()}
        pairs = {alias: _labelled(model, newest.values, known) for alias, model in models.items()}
        self.labelled = len(pairs["champion"][0])
        self.live = {
            alias: judge(truth, found, models[alias].session.contract.threshold)
            for alias, (truth, found) in pairs.items()
            if len(truth)
        }
        self.at = time.time()

    def _located(self, name: str) -> ResolvedModel:
        return registry.locate(name, self.tracking_uri or config.tracking_uri())

    def _model(self, located: ResolvedModel, values: RecordsRead) -> ActiveModel:
        """values: what it is to score."""

        def history(contract: Contract) -> History | None:
            return history_before(self.bootstrap_servers, self.topics[0], contract, values.starts, self.records_format)

        return ActiveModel.load(located.path, located.name, records=self.records_format, history=history)

    def _labels(self, topic: str, id_field: str) -> dict[str, int]:
        """By identifier. A record that is no label is not one."""
        known: dict[str, int] = {}
        for record in read_last(self.bootstrap_servers, topic, self.last):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(record.value or b"")
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
    model: ActiveModel, values: RecordsRead, known: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores (n,) of the records whose label is known."""
    if not known:
        return np.empty(0, np.int64), np.empty(0)
    decoded = model.decoder.decode(values)
    labels = np.array([known.get(str(json.loads(identifier)), -1) for identifier in decoded.ids], np.int64)
    return labels[labels >= 0], model.session.score(decoded.matrix)[labels >= 0]
