"""The parent of the workers: starts them, watches them, starts them again, drains them; serves the metrics."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from engine import kafka, worker
from engine.config import ServeSettings
from engine.contract import UNPROVEN, is_proven, read_contract
from engine.errors import ServingError
from engine.metrics import PoolMetrics, serve_http
from engine.pipeline import Backends
from engine.registry import Located

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_SHORT_LIFE = 5.0
_LONGEST_PAUSE = 5.0


@dataclass
class _Slot:
    """One worker's place: it keeps its number, so its name in the group, through every restart."""

    number: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    started: float = 0.0
    ready: bool = False
    short_lives: int = 0
    start_at: float = field(default_factory=time.monotonic)


class Pool:
    """`run` returns when the pool was stopped by SIGTERM or SIGINT and its workers have drained."""

    def __init__(self, settings: ServeSettings, located: Located) -> None:
        self._settings, self._located = settings, located
        name, _, version = located.name.rpartition("/")
        self._metrics = PoolMetrics({"name": name, "version": version, "sha256": located.sha256})
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._admin = kafka.admin(settings.bootstrap_servers)
        self._partitions = 0
        self._settled = self._stopping = self._told_reasons = False
        self._failure: str | None = None
        self._wake, self._waker = _SPAWN.Pipe(duplex=False)

    def run(self) -> None:
        """Serve until stopped; raises `ServingError` when topics do not fit or a worker cannot go on."""
        self._check_topics()
        read_contract(self._located.path)
        if not is_proven(self._located.path):
            _log.warning("%s is %s", self._located.name, UNPROVEN)
        try:
            server = serve_http(self._metrics, self._settings.metrics_port, self._is_ready)
        except OSError as error:
            raise ServingError(f"port {self._settings.metrics_port} is taken: choose another --metrics-port") from error
        _log.info("metrics at http://127.0.0.1:%d/metrics", server.server_port)
        with _on_signals(self._stop):
            while not (self._stopping or self._failure):
                self._start_due()
                self._listen(timeout=0.5 if self._settled else 0.1)
                self._settle()
            self._drain()
        server.shutdown()
        if self._failure:
            raise ServingError(self._failure)

    def _check_topics(self) -> None:
        settings = self._settings
        counts = kafka.partition_counts(
            settings.bootstrap_servers,
            (settings.input, settings.output, settings.rejected),
        )
        self._partitions = counts[settings.input]
        for topic in (settings.output, settings.rejected):
            if counts[topic] < counts[settings.input]:
                raise ServingError(
                    f"topic {topic} has {counts[topic]} partitions, {settings.input} has {counts[settings.input]}: "
                    "a result keeps its record's partition, so give it at least as many",
                )

    def _settle(self) -> None:
        """Notice, once, that every partition is read by somebody: by a worker of ours or of another pool."""
        settings = self._settings
        if self._settled or not all(slot.ready for slot in self._slots):
            return
        if kafka.is_settled(self._admin, settings.group, settings.input, self._partitions):
            self._settled = True
            _log.info("ready: every partition of %s is read", settings.input)

    def _is_ready(self) -> bool:
        return self._settled and all(slot.ready for slot in self._slots)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._waker.send(None)

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at:
                slot.pipe, theirs = _SPAWN.Pipe(duplex=False)
                slot.process = _SPAWN.Process(
                    target=worker.main,
                    args=(slot.number, self._settings, self._located, theirs),
                    name=f"saker-worker-{slot.number}",
                )
                slot.process.start()
                theirs.close()
                slot.started = time.monotonic()

    def _listen(self, timeout: float) -> None:
        """Take what workers tell until something happened or `timeout` seconds passed; notice those that died."""
        running = [slot for slot in self._slots if slot.process is not None]
        sources: list[Connection | int] = [self._wake]
        sources += [slot.pipe for slot in running if slot.pipe is not None]
        sources += [slot.process.sentinel for slot in running if slot.process is not None]
        happened = wait(sources, timeout)
        if self._wake in happened:
            self._wake.recv()
        for slot in running:
            if slot.pipe in happened:
                self._read(slot)
            if slot.process is not None and not slot.process.is_alive():
                self._read(slot)
                self._buried(slot, slot.process)

    def _read(self, slot: _Slot) -> None:
        try:
            while slot.pipe is not None and slot.pipe.poll():
                word, value = slot.pipe.recv()
                if word == worker.COUNTED:
                    self._metrics.add(slot.number, value)
                elif word == worker.FAILED:
                    self._failure = value
                elif not slot.ready:
                    slot.ready = True
                    self._note_backends(slot.number, value)
        except EOFError:
            slot.pipe = None

    def _note_backends(self, number: int, of: Backends) -> None:
        self._metrics.runs_on(number, of.trees, of.rows, of.kafka)
        name = self._located.name
        _log.info("worker %d ready with %s; trees: %s, rows: %s, kafka: %s", number, name, of.trees, of.rows, of.kafka)
        if of.reasons and self._settings.kernels != "off" and not self._told_reasons:
            self._told_reasons = True  # every worker has the same
            _log.warning("scoring without the native kernels, many times slower: %s", "; ".join(of.reasons))

    def _buried(self, slot: _Slot, process: SpawnProcess) -> None:
        code = process.exitcode
        slot.process, slot.pipe, slot.ready = None, None, False
        if self._stopping or self._failure:
            return
        lived = time.monotonic() - slot.started
        slot.short_lives = slot.short_lives + 1 if lived < _SHORT_LIFE else 0
        # The first restart is immediate; one that keeps dying waits longer each time.
        pause = min(0.1 * 2**slot.short_lives, _LONGEST_PAUSE) if slot.short_lives > 1 else 0.0
        slot.start_at = time.monotonic() + pause
        self._metrics.restarted(slot.number)
        _log.warning("worker %d ended with %s; starting it again", slot.number, code)

    def _drain(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()
        deadline = time.monotonic() + self._settings.drain_seconds + 5
        while any(slot.process is not None for slot in self._slots) and time.monotonic() < deadline:
            self._listen(timeout=0.1)
        for slot in self._slots:
            if slot.process is not None:
                _log.error("worker %d did not drain in time; its unacknowledged records are read again", slot.number)
                slot.process.kill()
                slot.process.join()


@contextmanager
def _on_signals(handler: object) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, handler) for number in numbers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, previous in zip(numbers, before, strict=True):
            signal.signal(number, previous)
