"""Counts in the workers, one exporter in the parent.

A worker counts in plain numbers and sends what came since the last time over its pipe; the parent adds up, so nothing is
lost when a worker dies and no file grows. /metrics, /healthz and /readyz are served by the parent alone.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

STAGES = ("decode", "score", "encode", "produce", "acknowledge")
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_FEW = 32
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass
class Histogram:
    """Counts of values up to each bound (inclusive), and above the last; and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_since(self, now: float, timestamps_ms: NDArray[np.int64]) -> None:
        """The seconds since each of the timestamps, and none below zero: clocks differ."""
        if len(timestamps_ms) < _FEW:  # a call of numpy takes longer
            for timestamp in timestamps_ms.tolist():
                self.observe(max(now - timestamp / 1000, 0.0))
            return
        values = np.maximum(now - timestamps_ms / 1000, 0)
        places = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts)).tolist()
        self.counts = [count + more for count, more in zip(self.counts, places, strict=True)]
        self.total += float(values.sum())

    def add(self, other: Histogram) -> None:
        self.counts = [count + more for count, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def buckets(self) -> list[tuple[str, float]]:
        names = [str(float(bound)) for bound in self.bounds] + ["+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


@dataclass
class Counts:
    """What a worker counted since it last told, or what the parent added up. The lag is the newest, not a sum."""

    scored: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    stages: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram(_STAGE_SECONDS) for stage in STAGES})
    batch_records: Histogram = field(default_factory=lambda: Histogram(_RECORDS))
    lag: int = 0

    def add(self, other: Counts) -> None:
        self.scored += other.scored
        self.failed.update(other.failed)
        self.latency.add(other.latency)
        self.batch_records.add(other.batch_records)
        for stage, histogram in self.stages.items():
            histogram.add(other.stages[stage])


class PoolMetrics(Collector):
    """The sums of all workers, as Prometheus reads them."""

    def __init__(self, model: Mapping[str, str]) -> None:
        self._model = dict(model)
        self._total = Counts()
        self._lags: dict[int, int] = {}
        self._backends: dict[int, tuple[str, str, str]] = {}
        self._restarts = 0
        self._lock = threading.Lock()

    def add(self, slot: int, counts: Counts) -> None:
        with self._lock:
            self._total.add(counts)
            self._lags[slot] = counts.lag

    def runs_on(self, slot: int, trees: str, rows: str, kafka: str) -> None:
        with self._lock:
            self._backends[slot] = (trees, rows, kafka)

    def restarted(self, slot: int) -> None:
        with self._lock:
            self._restarts += 1
            self._lags.pop(slot, None)
            self._backends.pop(slot, None)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            yield from self._families(self._total)

    def _families(self, total: Counts) -> Iterator[Metric]:
        yield CounterMetricFamily("scored_transactions", "Scores that Kafka acknowledged.", value=total.scored)
        failed = CounterMetricFamily("failed_transactions", "Rejections that Kafka acknowledged.", labels=["reason"])
        for reason, count in sorted(total.failed.items()):
            failed.add_metric([reason], count)
        yield failed
        yield _family("scoring_latency_seconds", "From a record's timestamp to its acknowledged score.", [((), total.latency)])
        yield _family(
            "stage_latency_seconds",
            "Time that a batch spends in a stage.",
            [((stage,), histogram) for stage, histogram in total.stages.items()],
            ["stage"],
        )
        yield _family("batch_records", "Records in a batch.", [((), total.batch_records)])
        yield GaugeMetricFamily("consumer_lag_records", "Records not consumed yet.", value=sum(self._lags.values()))
        yield CounterMetricFamily("worker_restarts", "Workers started again after they died.", value=self._restarts)
        ready = GaugeMetricFamily(
            "workers_ready", "Workers that score, by what they run on.", labels=["trees", "rows", "kafka"]
        )
        for backends, count in sorted(Counter(self._backends.values()).items()):
            ready.add_metric(backends, count)
        yield ready
        info = GaugeMetricFamily("model_info", "The model that scores.", labels=list(self._model))
        info.add_metric(list(self._model.values()), 1)
        yield info


def _family(
    name: str,
    documentation: str,
    series: Iterable[tuple[tuple[str, ...], Histogram]],
    labels: Iterable[str] = (),
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, documentation, labels=list(labels))
    for values, histogram in series:
        family.add_metric(list(values), histogram.buckets(), histogram.total)
    return family


def serve_http(metrics: PoolMetrics, port: int, ready: Callable[[], bool]) -> ThreadingHTTPServer:
    """Serve /metrics, /healthz and /readyz on 127.0.0.1 from a thread; port 0 takes a free one (`server_port`)."""
    registry = CollectorRegistry()
    registry.register(metrics)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(registry), content_type)
            elif path == "/healthz":
                self._answer(200, b"ok\n")
            elif path == "/readyz":
                self._answer(*((200, b"ready\n") if ready() else (503, b"not every partition is read yet\n")))
            else:
                self._answer(404, b"/metrics, /healthz or /readyz\n")

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Scrapes are not worth a line each."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
