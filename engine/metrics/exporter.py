"""/metrics, /healthz and /readyz, served by the parent alone: the sums of all its workers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from saker.engine.metrics.counts import Counts, HistoryCounts
from saker.engine.metrics.declared import family
from saker.engine.records.rejection import Reason

_CONNECTIONS, _SECONDS = 32, 10.0
_TICK, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class PoolMetrics(Collector):
    """The sums of all workers, as Prometheus reads them."""

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        """processes: of each running process its name (parent, or the number of the worker) and its id."""
        self._processes = processes
        self._model: tuple[str, str, str] | None = None
        self._found = True
        self._checked = time.time()
        self._loads = Counter({"loaded": 0, "refused": 0, "error": 0})
        # Every series is there from the start: a counter that appears as 1 has never increased.
        self._total = Counts(
            failed=Counter(dict.fromkeys(get_args(Reason), 0)), skipped=Counter({"tombstone": 0, "deleted_row": 0})
        )
        self._shadowed: Counter[str] = Counter()
        self._newest: dict[int, Counts] = {}
        self._lags: dict[tuple[str, int], int] | None = {}
        self._unread = self._waiting = 0
        self._backends: dict[int, tuple[str, str, str]] = {}
        self._restarts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def add(self, worker: int, counts: Counts) -> None:
        with self._lock:
            self._total.add(counts)
            self._newest[worker] = counts
            self._restarts[worker] += 0

    def lags(self, found: dict[tuple[str, int], int] | None) -> None:
        """found: records of each topic and partition that wait; None where no broker answers."""
        with self._lock:
            self._lags = found

    def unread(self, partitions: int) -> None:
        with self._lock:
            self._unread = partitions

    def waiting_for_schemas(self, partitions: int) -> None:
        with self._lock:
            self._waiting = partitions

    def runs_on(self, worker: int, trees: str, rows: str, kafka: str) -> None:
        with self._lock:
            self._backends[worker] = (trees, rows, kafka)

    def restarted(self, worker: int) -> None:
        with self._lock:
            self._restarts[worker] += 1
            self._newest.pop(worker, None)
            self._backends.pop(worker, None)

    def serves(self, name: str, version: str, sha256: str) -> None:
        with self._lock:
            self._model = (name, version, sha256)

    def model_found(self, found: bool) -> None:
        with self._lock:
            self._found = found

    def model_checked(self) -> None:
        with self._lock:
            self._checked = time.time()

    def model_loaded(self, result: str) -> None:
        """result: loaded, refused, or error where the check itself failed."""
        with self._lock:
            self._loads[result] += 1

    def shadowed(self, counts: Counter[str]) -> None:
        """counts: of records by what came of the comparison (agreed, disagreed, rejected, skipped)."""
        with self._lock:
            self._shadowed.update(dict.fromkeys(("agreed", "disagreed", "rejected", "skipped"), 0))
            self._shadowed.update(counts)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            yield from self._families(self._total)

    def _families(self, total: Counts) -> Iterator[Metric]:
        yield family("scored_transactions", [((), total.scored)])
        yield family("flagged_transactions", [((), total.flagged)])
        yield family("skipped_transactions", [((reason,), count) for reason, count in sorted(total.skipped.items())])
        yield family("failed_transactions", [((reason,), count) for reason, count in sorted(total.failed.items())])
        yield family("shadow_transactions", [((result,), count) for result, count in sorted(self._shadowed.items())])
        yield family("late_transactions", [((), total.late)])
        yield family("blank_transactions", [((), total.blank)])
        yield family("deleted_records", [((), total.deleted)])
        yield family("fraud_score", [((), total.scores)])
        yield family("scoring_latency_seconds", [((), total.latency)])
        yield family("stage_latency_seconds", [((stage,), histogram) for stage, histogram in total.stages.items()])
        yield family("batch_records", [((), total.batch_records)])
        yield family("in_flight_records", [((), sum(counts.in_flight for counts in self._newest.values()))])
        lags = (self._lags or {}).items()
        yield family("consumer_lag_records", [((topic, str(number)), lag) for (topic, number), lag in lags])
        yield family("unread_partitions", [((), self._unread)])
        yield family("schema_waiting_partitions", [((), self._waiting)])
        yield from self._histories(total.history)
        yield family("broker_up", [((), float(self._lags is not None))])
        yield family("rebalances", [((), total.rebalances)])
        yield family("worker_restarts", [((str(worker),), count) for worker, count in sorted(self._restarts.items())])
        yield family("workers_ready", sorted(Counter(self._backends.values()).items()))
        used = {name: told for name, number in self._processes().items() if (told := _used(number))}
        yield family("worker_cpu_seconds", [((name,), seconds) for name, (seconds, _) in used.items()])
        yield family("worker_resident_memory_bytes", [((name,), size) for name, (_, size) in used.items()])
        yield family("model_info", [(self._model, 1)] if self._model else [])
        yield family("model_found", [((), float(self._found))])
        yield family("model_checked_timestamp_seconds", [((), self._checked)])
        yield family("model_loads", [((result,), count) for result, count in self._loads.items()])

    def _histories(self, total: HistoryCounts) -> Iterator[Metric]:
        """Of velocity features; without a model that has some there is no snapshot, and the other series stay at 0."""
        newest = [counts.history for counts in self._newest.values()]
        saved = [one.snapshot_at for one in newest if one.snapshot_at is not None]
        evicted = {"open": total.grown["evicted_live"], "passed": total.grown["evicted"] - total.grown["evicted_live"]}
        yield family("history_keys", [((), sum(one.keys for one in newest))])
        yield family("history_bytes", [((), sum(one.bytes for one in newest))])
        yield family("history_evicted_keys", [((window,), count) for window, count in evicted.items()])
        yield family("history_incomplete_records", [((), total.grown["incomplete"])])
        yield family("history_untimed_records", [((), total.grown["without_time"])])
        yield family("history_replayed_records", [((), total.replayed)])
        yield family("history_replaying_partitions", [((), sum(one.replaying for one in newest))])
        yield family("history_snapshot_timestamp_seconds", [((), min(saved))] if saved else [])
        yield family("history_snapshot_seconds", [((), max((one.snapshot_seconds for one in newest), default=0.0))])
        yield family("history_snapshot_failures", [((), total.snapshot_failures)])


def _used(process: int) -> tuple[float, int] | None:
    """CPU seconds and resident bytes of a process (proc(5)); None when it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, resident = (int(fields[place]) for place in (11, 12, 21))  # fields 14, 15 and 24; 3 is the first here
    return (user + system) / _TICK, resident * _PAGE


class _Server(ThreadingHTTPServer):
    """Keeps at most `_CONNECTIONS`, each in a thread. A further one closes the oldest, so silent clients block no one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._open: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        super().__init__((address, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            if len(self._open) > _CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # its client has closed it
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is not worth a traceback."""


def serve_http(
    metrics: Collector,
    port: int,
    alive: Callable[[], bool],
    ready: Callable[[], bool],
    address: str = "127.0.0.1",
) -> ThreadingHTTPServer:
    """Serve /metrics, /healthz and /readyz from a thread; port 0 takes a free one (`server_port`). address: IPv4 or IPv6."""
    registry = CollectorRegistry()
    registry.register(metrics)

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(registry), content_type)
            elif path == "/healthz":
                self._answer(*((200, b"ok\n") if alive() else (503, b"the pool stands still\n")))
            elif path == "/readyz":
                self._answer(*((200, b"ready\n") if ready() else (503, b"not ready yet\n")))
            else:
                self._answer(404, b"/metrics, /healthz or /readyz\n")

        do_HEAD = do_GET  # noqa: N815 - the name that http.server expects

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            with contextlib.suppress(OSError):  # who asked has gone
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Scrapes are not worth a line each."""

    server = _Server(address, port, Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def url_of(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
