"""A second model on the same records: what it would have said, in a topic of its own, beside the pool and never in its way.

    input topic --> shadow process: both models --> shadow topic, a line a record
                    (group NAME-shadow, at low priority, within a share of a core; what it cannot manage it leaves out)

A process of its own, started by the pool: it may be slow, crash or lag, and the pool's results are neither later nor others. It
starts at the newest records, and again when one of the two models changes. `Shadow` is the parent's side.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType

import numpy as np
import orjson

from saker.engine.config import ServeSettings
from saker.engine.errors import ModelRefused
from saker.engine.kafka import clients
from saker.engine.kafka.batch import Origin, Partition, Taken
from saker.engine.kafka.clients import TopicPartition
from saker.engine.kafka.transport import Transport
from saker.engine.log import log_to_stderr
from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.active_model import ActiveModel
from saker.engine.model.registry import Located

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_AGAIN_SECONDS = 5.0
_TELL_SECONDS = 0.25
_BEHIND_SECONDS = 5.0  # what is older when it is taken is left out, up to the newest
_NICE = 10


class Shadow:
    """Keeps the process running. One thread of the parent calls `keep` and `stop`, another one `look`."""

    def __init__(self, settings: ServeSettings, locate: Callable[[], Located], metrics: PoolMetrics) -> None:
        """locate: finds the second model as it is now, or raises `ModelRefused`."""
        self._settings, self._locate, self._metrics = settings, locate, metrics
        self._newest: Located | None = None
        self._runs: tuple[Located, Located] | None = None
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._told = ""
        self._start_at = 0.0

    def look(self) -> None:
        """Find the second model."""
        try:
            self._newest = self._locate()
            self._told = ""
        except ModelRefused as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("shadow: %s", error)

    def keep(self, served: Located) -> None:
        """Called again and again. served: the model that the pool scores with."""
        self._read()
        if self._newest is None:
            return
        models = (served, self._newest)
        if self._process is not None and models != self._runs:
            self.stop()
        if self._process is not None and not self._process.is_alive():
            _log.warning("shadow: its process ended with %s; starting it again", self._process.exitcode)
            self._process, self._start_at = None, time.monotonic() + _AGAIN_SECONDS
        if self._process is None and time.monotonic() >= self._start_at:
            self._pipe, theirs = _SPAWN.Pipe(duplex=False)
            self._process = _SPAWN.Process(target=main, args=(self._settings, *models, theirs), name="saker-shadow")
            self._process.start()
            theirs.close()
            self._runs = models
            _log.info("shadow: %s beside %s", self._newest.name, served.name)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join(_AGAIN_SECONDS)
            self._process.kill()
            self._process.join()
            self._read()
        self._process = None

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self._pipe is not None and self._pipe.poll():
                self._metrics.shadowed(self._pipe.recv())


def main(settings: ServeSettings, served: Located, second: Located, parent: Connection) -> None:
    """Entry point of the process."""
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    comparison = Comparison(*(ActiveModel.load(one.path, one.name, settings.kernels) for one in (served, second)))
    process = _Process(settings, comparison, parent)
    signal.signal(signal.SIGTERM, process.stop)
    process.run()


class Comparison:
    """What two models say of the same records."""

    def __init__(self, served: ActiveModel, second: ActiveModel) -> None:
        self._served, self._second = served, second
        self.counts: Counter[str] = Counter()

    def lines(self, taken: Taken) -> Iterator[tuple[int, bytes]]:
        """For each record that the served model scores, its place and a JSON object."""
        ids, scores = self._scores(self._served, taken)
        _, others = self._scores(self._second, taken)
        contract = self._served.session.contract
        for index, score in scores.items():
            other = others.get(index)
            flags = [score >= contract.threshold, other is not None and other >= self._second.session.contract.threshold]
            self.counts["rejected" if other is None else "disagreed" if flags[0] != flags[1] else "agreed"] += 1
            yield (
                index,
                orjson.dumps(
                    {
                        contract.id_field: orjson.Fragment(ids[index]),
                        "fraud_score": score,
                        "is_fraud": flags[0],
                        "model": self._served.name,
                        "shadow_score": other,
                        "shadow_is_fraud": None if other is None else flags[1],
                        "shadow_model": self._second.name,
                    }
                ),
            )

    @staticmethod
    def _scores(model: ActiveModel, taken: Taken) -> tuple[dict[int, bytes], dict[int, float]]:
        decoded = model.decoder.decode(taken)
        indices, scores = decoded.indices.tolist(), model.session.score(decoded.matrix)
        ids = dict(zip(indices, decoded.ids, strict=True))
        finite = np.isfinite(scores).tolist()
        return ids, {i: score for i, score, known in zip(indices, scores.tolist(), finite, strict=True) if known}


class _Process:
    """Consume, compare, produce; sleep when the share of CPU is used up, skip when that leaves it behind."""

    def __init__(self, settings: ServeSettings, comparison: Comparison, parent: Connection) -> None:
        self._settings, self._comparison, self._parent = settings, comparison, parent
        self._parent_id = os.getppid()
        self._stopping = False
        self._assigned: set[Partition] = set()
        group = {"group.id": f"{settings.group}-shadow", "auto.offset.reset": "latest", "enable.auto.commit": True}
        self._consumer = clients.consumer(settings.bootstrap_servers, **group)
        # Nobody waits for these: with a linger longer than an answer takes librdkafka does not spin (at_least_once.py).
        self._producer = clients.producer(settings.bootstrap_servers, **{"linger.ms": 50})
        self._transport = Transport(self._consumer, [self._producer], settings.shadow_output, self._assigned)

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def run(self) -> None:
        self._consumer.subscribe([self._settings.input], on_assign=self._on_assign, on_revoke=self._on_revoke)
        started, told = time.monotonic(), time.monotonic()
        while not self._stopping and os.getppid() == self._parent_id:
            taken, _ = self._transport.take(self._settings.max_batch, 0.1)
            if len(taken) and not self._skip(taken):
                for index, line in self._comparison.lines(taken):
                    self._transport.send_one(self._settings.shadow_output, line, Origin(*taken.origin(index)), _ignore)
            self._producer.poll(0)
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                self._tell()
            allowed = (time.monotonic() - started) * self._settings.shadow_cpu
            time.sleep(min(max(time.process_time() - allowed, 0) / self._settings.shadow_cpu, 1.0))
        self._producer.flush(_AGAIN_SECONDS)
        self._tell()
        self._consumer.close()

    def _skip(self, taken: Taken) -> bool:
        """Go on at the newest records when it is too far behind them."""
        timestamps = np.empty(len(taken), np.int64)
        taken.timestamps(timestamps)
        if time.time() * 1000 - timestamps.max() < _BEHIND_SECONDS * 1000:
            return False
        skipped = len(taken)
        for topic, number in list(self._assigned):
            at = self._consumer.position([TopicPartition(topic, number)])[0]
            _, high = self._consumer.get_watermark_offsets(at)
            if 0 <= at.offset < high:
                skipped += high - at.offset
                self._consumer.seek(TopicPartition(topic, number, high))
        self._comparison.counts["skipped"] += skipped
        return True

    def _tell(self) -> None:
        counts, self._comparison.counts = self._comparison.counts, Counter()
        with contextlib.suppress(OSError):  # the parent is gone; the loop ends by itself
            self._parent.send(counts)

    def _on_assign(self, _: object, partitions: list[TopicPartition]) -> None:
        self._assigned |= {(one.topic, one.partition) for one in partitions}

    def _on_revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        self._assigned -= {(one.topic, one.partition) for one in partitions}


def _ignore(_error: object, _message: object) -> None:
    """A line that is lost is no harm."""
