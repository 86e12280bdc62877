"""The parent of the workers: starts them, watches them, starts them again, drains them; serves the metrics."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from engine import kafka, worker
from engine.config import ServeSettings
from engine.contract import UNPROVEN, is_proven, read_contract
from engine.errors import ServingError
from engine.exporter import PoolMetrics, serve_http
from engine.follow import Follower, every
from engine.pipeline import Backends
from engine.registry import Located

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_SHORT_LIFE = 5.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
_LAG_SECONDS = 2.0
_FENCED_SECONDS = 30.0


@dataclass
class _Slot:
    """One worker's place: it keeps its number, so its name in the group, through every restart."""

    number: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    started: float = 0.0
    ready: bool = False
    #: What it scores with; and whether it was asked to change to the pool's target.
    runs: Located | None = None
    asked: bool = False
    fenced: float = -math.inf
    short_lives: int = 0
    start_at: float = field(default_factory=time.monotonic)


class Pool:
    """`run` returns when the pool was stopped by SIGTERM or SIGINT and its workers have drained."""

    def __init__(self, settings: ServeSettings, located: Located, locate: Callable[[], Located]) -> None:
        """located: the model to begin with. locate: finds the one of now, asked every `model_poll_seconds`."""
        self._settings, self._locate = settings, locate
        #: What a worker starts with, and what all of them should score with: they differ while a model changes.
        self._located = self._target = located
        self._metrics = PoolMetrics(self._processes)
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._admin = kafka.admin(settings.bootstrap_servers)
        self._observer = kafka.observer(settings.bootstrap_servers, settings.group)
        self._partitions = 0
        self._lags: dict[tuple[str, int], int] | None = {}
        self._settled = self._stopping = self._told_reasons = self._told_unreachable = False
        self._failure: str | None = None
        self._refused: Located | None = None
        self._wake, self._waker = _SPAWN.Pipe(duplex=False)

    def run(self) -> None:
        """Serve until stopped; raises `ServingError` when topics do not fit or a worker cannot go on.

        A broker that does not answer is waited for.
        """
        read_contract(self._located.path)
        if not is_proven(self._located.path):
            _log.warning("%s is %s", self._located.name, UNPROVEN)
        self._note_model()
        address, port = self._settings.metrics_address, self._settings.metrics_port
        try:
            server = serve_http(self._metrics, port, self._is_ready, address)
        except OSError as error:
            raise ServingError(
                f"{address}:{port} cannot be listened on ({error.strerror}): choose another --metrics-port"
            ) from error
        _log.info("metrics at http://%s:%d/metrics", address, server.server_port)
        stop = threading.Event()
        try:
            self._serve(stop)
        finally:
            stop.set()
            server.shutdown()
            server.server_close()
        if self._failure:
            raise ServingError(self._failure)

    def _serve(self, stop: threading.Event) -> None:
        follower = Follower(self._locate, self._located, self._metrics, self._be_woken)
        with _on_signals(self._stop):
            self._wait_for_topics()
            every(self._settings.model_poll_seconds, follower.look, stop)
            every(_LAG_SECONDS, self._look_at_lag, stop)
            while not (self._stopping or self._failure):
                self._start_due()
                self._listen(timeout=0.5 if self._settled else 0.1)
                self._settle()
                self._change_model(follower)
            stop.set()
            self._drain()

    def _wait_for_topics(self) -> None:
        pause = _SHORTEST_PAUSE
        while not self._stopping:
            try:
                self._check_topics()
            except kafka.BrokerUnreachable as error:
                self._metrics.lags(None)
                _log.warning("%s; trying again in %.0f s", error, pause)
            else:
                return
            if self._wake.poll(pause):
                self._wake.recv()
            pause = min(2 * pause, _LONGEST_PAUSE)

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
        return self._settled and self._lags is not None and all(slot.ready for slot in self._slots)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._be_woken()

    def _be_woken(self) -> None:
        self._waker.send(None)

    def _processes(self) -> dict[str, int]:
        running = {str(slot.number): slot.process.pid for slot in self._slots if slot.process is not None}
        return {"parent": os.getpid(), **{name: number for name, number in running.items() if number is not None}}

    def _look_at_lag(self) -> None:
        settings = self._settings
        self._lags = kafka.lags(self._observer, settings.input, self._partitions)
        if self._lags is None and not self._told_unreachable:
            _log.warning("no Kafka broker answers at %s; waiting for it", settings.bootstrap_servers)
        self._told_unreachable = self._lags is None
        self._metrics.lags(self._lags)

    def _note_model(self) -> None:
        name, _, version = self._located.name.rpartition("/")
        self._metrics.serves(name, version, self._located.sha256)

    def _change_model(self, follower: Follower) -> None:
        """Ask one worker after another to change to the target; when all have, it is what new ones start with."""
        if any(slot.asked for slot in self._slots):
            return
        if self._target == self._located and follower.newest not in (self._located, self._refused):
            self._target, self._refused = follower.newest, None
            _log.info("changing from %s to %s", self._located.name, self._target.name)
        ready = [slot for slot in self._slots if slot.ready]
        behind = next((slot for slot in ready if slot.runs != self._target), None)
        if behind is not None and behind.pipe is not None:
            behind.asked = True
            with contextlib.suppress(OSError):  # it has just died
                behind.pipe.send(self._target)
        elif self._target != self._located and len(ready) == len(self._slots):
            self._located = self._target
            self._note_model()
            self._metrics.model_loaded("loaded")
            _log.info("every worker scores with %s", self._located.name)

    def _refuse(self, slot: _Slot, reason: str) -> None:
        """The target may not serve: those that changed to it go back."""
        slot.asked = False
        if self._target == self._located:  # it cannot even go back: it starts again, with the right one
            if slot.process is not None:
                slot.process.terminate()
            return
        self._refused, self._target = self._target, self._located
        self._metrics.model_loaded("refused")
        _log.error("%s was refused, %s goes on scoring: %s", self._refused.name, self._located.name, reason)

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at:
                slot.pipe, theirs = _SPAWN.Pipe()
                slot.runs, slot.asked = self._located, False
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
                elif word == worker.FENCED:
                    self._fenced(slot, value)
                elif word == worker.REFUSED:
                    self._refuse(slot, value)
                elif word == worker.CHANGED:
                    slot.runs, slot.asked = self._target, False
                    self._metrics.runs_on(slot.number, value.trees, value.rows, value.kafka)
                elif not slot.ready:
                    slot.ready = True
                    self._note_backends(slot.number, value)
        except EOFError:
            slot.pipe = None

    def _fenced(self, slot: _Slot, reason: str) -> None:
        """Once is no proof of another pool: when a broker was away for longer than a session lasts, the worker joins again as
        a new member, and a commit of the old one that still waited is refused as that of a stranger."""
        if time.monotonic() - slot.fenced < _FENCED_SECONDS:
            self._failure = reason
        slot.fenced = time.monotonic()

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
        if slot.asked:
            self._refuse(slot, f"worker {slot.number} ended with {code} while it loaded it")
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
        if self._stopping and self._partitions:
            names = [worker.instance_of(self._settings, slot.number) for slot in self._slots if slot.process is None]
            kafka.hand_over(self._settings.bootstrap_servers, self._settings.group, names)
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
