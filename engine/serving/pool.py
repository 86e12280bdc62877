"""The parent of the workers: starts, watches, restarts and drains them, and serves the metrics.

One thread runs the loop and owns all state here; others check the model, the lag and the shadow model, and answer HTTP.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import assert_never

from saker.engine.config import ServeSettings
from saker.engine.contract import read_contract
from saker.engine.errors import SakerError, ServingError
from saker.engine.kafka import admin, clients, topic_checks
from saker.engine.kafka.groups import GroupAdmin
from saker.engine.metrics.exporter import PoolMetrics, serve_http, url_of
from saker.engine.model.active_model import Backends
from saker.engine.model.registry import ResolvedModel
from saker.engine.model.trial import try_model
from saker.engine.onnx_metadata import UNPROVEN, is_proven
from saker.engine.schema_registry import open_format
from saker.engine.serving.group_watch import GroupWatch, Seen
from saker.engine.serving.key_check import check_keys
from saker.engine.serving.messages import (
    Counted,
    Failed,
    FromWorker,
    ModelChanged,
    ModelRejected,
    Ready,
    TopicsGrown,
    WorkerFenced,
)
from saker.engine.serving.model_watcher import ModelWatcher, every
from saker.engine.serving.poison_records import CrashHistory, why_given_up
from saker.engine.serving.rollout import Rollout
from saker.engine.serving.shadow import Shadow
from saker.engine.serving.warm_up import WarmUp
from saker.engine.serving.worker import instance_of
from saker.engine.serving.worker_process import Watchdog, WorkerProcess

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
_LOOK_SECONDS = 0.5
_LATE_SECONDS = 5.0  # for a report, which comes every 0.25 s
_STUCK_SECONDS = 60.0
_FENCED_SECONDS = 30.0


class Pool:
    """`run` returns when the pool was stopped by SIGTERM or SIGINT and its workers have drained."""

    def __init__(
        self,
        settings: ServeSettings,
        resolved: ResolvedModel,
        locate: Callable[[], ResolvedModel],
        shadow: Callable[[], ResolvedModel] | None = None,
    ) -> None:
        """resolved: the model to begin with. locate: finds the one of now, asked every `model_poll_seconds`; shadow: likewise a
        second one to compare it with.
        """
        self._settings, self._locate = settings, locate
        self._metrics = PoolMetrics(self._processes)
        self._rollout = Rollout(resolved, self._metrics)
        self._workers = [WorkerProcess(number) for number in range(settings.workers)]
        self._watchdog = Watchdog(settings.hung_seconds)
        self._watch: GroupWatch | None = None
        self._missing: frozenset[str] = frozenset()
        self._settled = self._stopping = self._warned_backends = False
        self._passed = time.monotonic()
        self._failure: str | None = None
        self._crashes = CrashHistory()
        self._shadow = None if shadow is None else Shadow(settings, shadow, self._metrics)
        self._wake, self._waker = _SPAWN.Pipe(duplex=False)

    def run(self) -> None:
        """Serve until stopped; raises `ServingError` if topics do not fit or a worker cannot continue.

        Waits for a broker that does not answer.
        """
        with _on_signals(self._stop):  # from here on, also while the model is tried and before the first worker starts
            self._run()
        if self._failure:
            raise ServingError(self._failure)

    def _run(self) -> None:
        resolved = self._rollout.resolved
        try_model(resolved.path, resolved.name, self._settings.kernels)
        if not is_proven(resolved.path):
            _log.warning("%s is %s", resolved.name, UNPROVEN)
        address, port = self._settings.metrics_address, self._settings.metrics_port
        try:
            server = serve_http(self._metrics, port, self._is_alive, self._is_ready, address)
        except OSError as error:
            raise ServingError(
                f"{url_of(address, port)} is not available ({error.strerror}): choose another --metrics-port or address"
            ) from error
        _log.info("metrics at %s/metrics", url_of(address, server.server_port))
        stop = threading.Event()
        try:
            self._serve(stop)
        except BaseException:
            self._kill()  # they would be waited for
            raise
        finally:
            stop.set()
            server.shutdown()
            server.server_close()

    def _serve(self, stop: threading.Event) -> None:
        warm_up = WarmUp(lambda: self._settings, self._partitions)
        watcher = ModelWatcher(
            self._locate, self._rollout.resolved, self._metrics, self._wake_up, warm_up, self._settings.kernels
        )
        self._watch = self._wait_for_topics()
        every(self._settings.model_poll_seconds, "model", watcher.check, stop, lambda: self._metrics.model_loaded("error"))
        every(_LOOK_SECONDS, "group", self._look, stop, lambda: self._metrics.lags(None))
        if self._shadow is not None:
            every(self._settings.model_poll_seconds, "shadow", self._shadow.check, stop, lambda: None, at_once=True)
        while self._watch is not None and not (self._stopping or self._failure):
            self._follow(self._watch.seen)
            self._start_due()
            self._listen(timeout=0.5 if self._settled else 0.1)
            self._settle(self._watch.seen)
            self._watchdog.check(self._workers)
            self._rollout.advance(self._workers, watcher.newest)
            if self._shadow is not None and self._settled:
                self._shadow.keep(self._rollout.resolved)
        stop.set()
        self._drain()

    def _wait_for_topics(self) -> GroupWatch | None:
        """None where the pool was stopped before they were there."""
        pause = _SHORTEST_PAUSE
        while not self._stopping:
            self._passed = time.monotonic()
            try:
                return self._check_topics()
            except clients.BrokerUnreachable as error:
                self._metrics.lags(None)
                _log.warning("%s; retrying in %.0f s", error, pause)
            if self._wake.poll(pause):
                self._wake.recv()
            pause = min(2 * pause, _LONGEST_PAUSE)
        return None

    def _check_topics(self) -> GroupWatch:
        settings = self._settings
        (source, output, rejected), findings = topic_checks.check(
            settings.bootstrap_servers, settings.input, settings.output, settings.rejected
        )
        if errors := [finding.text for finding in findings if finding.severity == "error"]:
            raise ServingError("; ".join(errors))
        for finding in findings:
            if finding.severity == "warning":
                _log.warning(finding.text)
        if self._shadow is not None:
            admin.partition_counts(settings.bootstrap_servers, [settings.shadow_output])
        self._check_keys()
        shape = admin.shapes(clients.admin(settings.bootstrap_servers), [settings.input])[settings.input]
        seen = Seen(True, source.partitions, min(output.partitions, rejected.partitions), shape.topic_id)
        self._settings = replace(
            settings,
            output_limits=output.limits,
            rejected_limits=rejected.limits,
            writable_partitions=seen.writable,
            topic_id=seen.topic_id,
        )
        names = [instance_of(settings, worker.number) for worker in self._workers]
        return GroupWatch(settings, names, self._metrics, seen)

    def _check_keys(self) -> None:
        settings = self._settings
        contract = read_contract(self._rollout.resolved.path)
        if not contract.velocity or settings.state.cold_start:
            return
        try:
            check_keys(settings.bootstrap_servers, settings.input, contract, open_format(settings.records))
        except ServingError:
            raise
        except SakerError as error:  # the registry of schemas does not answer
            _log.warning("cannot check whether velocity features have the key of %s: %s", settings.input, error)

    def _look(self) -> None:
        if self._watch is not None:
            self._watch.check(often=not self._settled)

    def _follow(self, seen: Seen) -> None:
        """Do what a change of the topics asks for."""
        settings = self._settings
        if seen.missing != self._missing:
            if seen.missing:
                _log.error("topic %s does not exist; waiting until it is created", ", ".join(sorted(seen.missing)))
            self._missing = seen.missing
        if seen.topic_id and settings.topic_id and seen.topic_id != settings.topic_id:
            _log.error(
                "topic %s was deleted and recreated: offsets of the old one say nothing of it, so the workers start again "
                "and read it from its start",
                settings.input,
            )
            self._settings = replace(self._settings, topic_id=seen.topic_id)
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.terminate()
        if seen.writable != settings.writable_partitions:
            self._settings = replace(self._settings, writable_partitions=seen.writable)
            for worker in self._workers:
                worker.tell(TopicsGrown(seen.writable))

    def _settle(self, seen: Seen) -> None:
        """Notice, once, that every partition is read by somebody: by a worker of ours or of another pool."""
        if self._settled or not all(worker.ready for worker in self._workers):
            return
        if len(self._partitions()) == seen.partitions or seen.unread == frozenset():
            self._settled = True
            _log.info("ready: every partition of %s is read", self._settings.input)

    def _partitions(self) -> frozenset[int]:
        """Of the input, that the workers read."""
        return frozenset[int]().union(*(worker.partitions for worker in self._workers))

    def _is_ready(self) -> bool:
        if self._watch is None or not self._settled or self._missing or not self._watch.seen.broker:
            return False
        late = time.monotonic() - _LATE_SECONDS
        return all(
            worker.ready and worker.heard > late and not worker.waiting and not worker.replaying for worker in self._workers
        )

    def _is_alive(self) -> bool:
        return time.monotonic() - self._passed < _STUCK_SECONDS

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._wake_up()

    def _wake_up(self) -> None:
        self._waker.send(None)

    def _processes(self) -> dict[str, int]:
        running = {str(worker.number): worker.process.pid for worker in self._workers if worker.process is not None}
        return {"parent": os.getpid(), **{name: number for name, number in running.items() if number is not None}}

    def _start_due(self) -> None:
        if self._missing:
            return
        for worker in self._workers:
            if worker.process is None and time.monotonic() >= worker.start_at:
                try:
                    self._rollout.restore()
                except OSError as error:
                    _log.error(
                        "worker %d cannot be started, its model cannot be restored to the cache: %s", worker.number, error
                    )
                    worker.start_at = time.monotonic() + _LONGEST_PAUSE
                    continue
                worker.start(self._settings, self._rollout.resolved, self._crashes.suspects())

    def _listen(self, timeout: float) -> None:
        """Handle messages of workers until something happens or `timeout` seconds pass; notice dead workers."""
        self._passed = time.monotonic()
        running = [worker for worker in self._workers if worker.process is not None]
        sources: list[Connection | int] = [self._wake]
        sources += [worker.pipe for worker in running if worker.pipe is not None]
        sources += [worker.process.sentinel for worker in running if worker.process is not None]
        happened = wait(sources, timeout)
        if self._wake in happened:
            self._wake.recv()
        for worker in running:
            if worker.pipe in happened:
                self._read(worker)
            if worker.process is not None and not worker.process.is_alive():
                self._read(worker)
                self._on_exit(worker, worker.process)

    def _read(self, worker: WorkerProcess) -> None:
        try:
            while worker.pipe is not None and worker.pipe.poll():
                message: FromWorker = worker.pipe.recv()
                worker.hear()
                self._take(worker, message)
        except EOFError:
            worker.pipe = None

    def _take(self, worker: WorkerProcess, message: FromWorker) -> None:
        match message:
            case Counted(counts):
                worker.replaying = counts.history.replaying
                self._metrics.add(worker.number, counts)
            case Ready(backends, partitions, waiting):
                worker.partitions, worker.waiting = partitions, waiting
                self._metrics.waiting_for_schemas(sum(one.waiting for one in self._workers))
                if not worker.ready:
                    worker.ready = True
                    self._note_backends(worker.number, backends)
            case ModelChanged(backends):
                self._rollout.changed(worker)
                self._metrics.runs_on(worker.number, backends.trees, backends.rows, backends.kafka)
            case ModelRejected(reason):
                self._rollout.reject(worker, reason)
            case Failed(reason):
                self._failure = reason
            case WorkerFenced(reason):
                self._fenced(worker, reason)
            case _:
                assert_never(message)

    def _fenced(self, worker: WorkerProcess, reason: str) -> None:
        """Once does not prove another pool: after a broker was away for longer than a session, the worker rejoins as a new
        member, and Kafka refuses a waiting commit of the old one as that of a stranger."""
        if time.monotonic() - worker.fenced < _FENCED_SECONDS:
            self._failure = reason
        worker.fenced = time.monotonic()

    def _note_backends(self, number: int, of: Backends) -> None:
        self._metrics.runs_on(number, of.trees, of.rows, of.kafka)
        name = self._rollout.resolved.name
        _log.info("worker %d ready with %s; trees: %s, rows: %s, kafka: %s", number, name, of.trees, of.rows, of.kafka)
        if of.reasons and self._settings.kernels != "off" and not self._warned_backends:
            self._warned_backends = True  # every worker has the same
            _log.warning("some stages run on the slower reference path: %s", "; ".join(of.reasons))

    def _on_exit(self, worker: WorkerProcess, process: SpawnProcess) -> None:
        if worker.asked:
            self._rollout.reject(worker, f"worker {worker.number} ended with {process.exitcode} while it loaded it")
        record = self._crashes.note(worker.marker)
        worker.on_exit(explained=record is not None)
        if self._stopping or self._failure:
            return
        if record is not None:
            _log.error(
                "the record at partition %d, offset %d of %s is rejected: %s",
                *record,
                self._settings.input,
                why_given_up(self._crashes.suspects().given_up[record]).message,
            )
        self._metrics.restarted(worker.number)
        _log.warning("worker %d ended with %s; restarting it", worker.number, process.exitcode)

    def _drain(self) -> None:
        if self._shadow is not None:
            self._shadow.stop()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()
        deadline = time.monotonic() + self._settings.drain_seconds + 5
        while any(worker.process is not None for worker in self._workers) and time.monotonic() < deadline:
            self._listen(timeout=0.1)
        if self._stopping and self._watch is not None and self._settings.group_protocol == "classic":
            self._hand_over()
        for worker in self._workers:
            if worker.process is not None:
                _log.error("worker %d did not drain in time; its unacknowledged records will be read again", worker.number)
        self._kill()

    def _hand_over(self) -> None:
        """Remove the ended workers from their group, so that other members get their partitions at once."""
        names = [instance_of(self._settings, worker.number) for worker in self._workers if worker.process is None]
        group = GroupAdmin(self._settings.bootstrap_servers)
        if not group.remove(self._settings.group, names):
            _log.warning("the group coordinator did not answer; partitions move to other members when the sessions time out")
        group.close()

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
                worker.process.join()


@contextmanager
def _on_signals(handler: object) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, handler) for number in numbers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, previous in zip(numbers, before, strict=True):
            signal.signal(number, previous)
