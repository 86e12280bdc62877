"""Shadow scoring: a second model on the same records, in a separate process and topic. It never affects production results.

    input topic --> shadow process: both models --> shadow topic, one result per record
                    (group NAME-shadow, at low priority, within a CPU limit; it skips what is too much)

The pool starts the process. It may be slow, crash or lag. It starts at the newest records, and restarts when one of the models
changes. `Shadow` is the parent's side.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType

import numpy as np
import orjson

from saker.engine.config import ServeSettings
from saker.engine.errors import ModelRefused, SakerError
from saker.engine.kafka import admin, clients
from saker.engine.kafka.batch import ConsumedBatch
from saker.engine.kafka.clients import REQUEST_SECONDS, TopicPartition
from saker.engine.kafka.transport import DeliveryReports, Transport
from saker.engine.log import log_to_stderr
from saker.engine.metrics.exporter import PoolMetrics
from saker.engine.model.active_model import ActiveModel
from saker.engine.model.registry import ResolvedModel
from saker.engine.records.decode import Decoder
from saker.engine.schema_registry import open_format
from saker.engine.serving.catch_up import catch_up, reading
from saker.engine.serving.histories import WorkerHistories
from saker.engine.serving.model_loading import load

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_AGAIN_SECONDS = 5.0
_REPORT_SECONDS = 0.25
_BEHIND_SECONDS = 5.0  # records that are older when their batch starts are skipped, up to the newest
_NICE = 10
_REPLAY_MS = 86_400_000  # limit for the replay of histories


class Shadow:
    """Keeps the process running. One thread of the parent calls `keep` and `stop`, another one `check`."""

    def __init__(self, settings: ServeSettings, locate: Callable[[], ResolvedModel], metrics: PoolMetrics) -> None:
        """locate: finds the second model as it is now, or raises `ModelRefused`."""
        self._settings, self._locate, self._metrics = settings, locate, metrics
        self._newest: ResolvedModel | None = None
        self._runs: tuple[ResolvedModel, ResolvedModel] | None = None
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._told = ""
        self._start_at = 0.0

    def check(self) -> None:
        """Find the second model."""
        try:
            self._newest = self._locate()
            self._told = ""
        except ModelRefused as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("shadow: %s", error)

    def keep(self, served: ResolvedModel) -> None:
        """Called in every pass of the pool's loop. served: the model that the pool scores with."""
        self._read()
        if self._newest is None:
            return
        models = (served, self._newest)
        if self._process is not None and models != self._runs:
            self.stop()
        if self._process is not None and not self._process.is_alive():
            _log.warning("shadow: its process ended with %s; restarting it", self._process.exitcode)
            self._process, self._start_at = None, time.monotonic() + _AGAIN_SECONDS
        if self._process is None and time.monotonic() >= self._start_at:
            self._pipe, theirs = _SPAWN.Pipe(duplex=False)
            self._process = _SPAWN.Process(target=main, args=(self._settings, *models, theirs), name="saker-shadow")
            self._process.start()
            theirs.close()
            self._runs = models
            _log.info("shadow: %s next to %s", self._newest.name, served.name)

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


def main(settings: ServeSettings, served: ResolvedModel, second: ResolvedModel, parent: Connection) -> None:
    """Entry point of the process."""
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    records = open_format(settings.records)
    try:
        # Each model has its own histories, also where the velocity features are the same: both decode every record.
        histories = [WorkerHistories(settings, records.envelope) for _ in range(2)]
        models = [load(one, settings, records, of) for one, of in zip((served, second), histories, strict=True)]
        for model, of in zip(models, histories, strict=True):
            of.use(model.decoder.history)
        process = _Process(settings, Comparison(*models), histories, parent)
        signal.signal(signal.SIGTERM, process.stop)
        process.run()
    except SakerError as error:
        _log.error("shadow: %s", error)
        sys.exit(1)


class Comparison:
    """What two models say of the same records."""

    def __init__(self, served: ActiveModel, second: ActiveModel) -> None:
        self._served, self._second = served, second
        self.counts: Counter[str] = Counter()

    @property
    def decoders(self) -> tuple[Decoder, Decoder]:
        return self._served.decoder, self._second.decoder

    def lines(self, batch: ConsumedBatch) -> Iterator[tuple[int, bytes]]:
        """For each record that the served model scores, its place and a JSON object."""
        ids, scores = self._scores(self._served, batch)
        _, others = self._scores(self._second, batch)
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
    def _scores(model: ActiveModel, batch: ConsumedBatch) -> tuple[dict[int, bytes], dict[int, float]]:
        decoded = model.decoder.decode(batch)
        indices, scores = decoded.indices.tolist(), model.session.score(decoded.matrix)
        ids = dict(zip(indices, decoded.ids, strict=True))
        finite = np.isfinite(scores).tolist()
        return ids, {i: score for i, score, known in zip(indices, scores.tolist(), finite, strict=True) if known}


class _Process:
    """Consume, compare, produce; sleep when the share of CPU is used up, skip when that leaves it behind."""

    def __init__(
        self, settings: ServeSettings, comparison: Comparison, histories: list[WorkerHistories], parent: Connection
    ) -> None:
        self._settings, self._comparison, self._parent = settings, comparison, parent
        self._histories = [(decoder, of) for decoder, of in zip(comparison.decoders, histories, strict=True) if of.active]
        self._parent_id = os.getppid()
        self._stopping = False
        group = {"group.id": f"{settings.group}-shadow", "auto.offset.reset": "latest", "enable.auto.commit": True}
        if self._histories:
            group["max.poll.interval.ms"] = _REPLAY_MS
        self._consumer = clients.consumer(settings.bootstrap_servers, **group)
        # Nobody waits for these: with a linger longer than an answer takes librdkafka does not spin (at_least_once.py).
        self._producer = clients.producer(settings.bootstrap_servers, **{"linger.ms": 50})
        self._transport = Transport(self._consumer, [self._producer], settings.shadow_output)
        # It may have fewer partitions than the input: these results may be anywhere.
        self._partitions = admin.partition_counts(settings.bootstrap_servers, [settings.shadow_output])[settings.shadow_output]

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def run(self) -> None:
        self._consumer.subscribe([self._settings.input], on_assign=self._on_assign, on_revoke=self._on_revoke)
        started, reported = time.monotonic(), time.monotonic()
        while not self._stopping and os.getppid() == self._parent_id:
            batch, _ = self._transport.poll(self._settings.max_batch, 0.1)
            if len(batch) and not self._skip(batch):
                for index, line in self._compared(batch):
                    origin = batch.origin(index)
                    place = origin._replace(partition=origin.partition % self._partitions)
                    self._transport.send_one(self._settings.shadow_output, line, place, DeliveryReports())
            self._producer.poll(0)
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                self._report()
            allowed = (time.monotonic() - started) * self._settings.shadow_cpu
            time.sleep(min(max(time.process_time() - allowed, 0) / self._settings.shadow_cpu, 1.0))
        self._producer.flush(_AGAIN_SECONDS)
        self._report()
        self._transport.close()

    def _compared(self, batch: ConsumedBatch) -> list[tuple[int, bytes]]:
        try:
            return list(self._comparison.lines(batch))
        except SakerError as error:  # a schema that cannot be fetched now
            clients.warn(f"shadow: {error}; these records are skipped")
            self._comparison.counts["skipped"] += len(batch)
            return []

    def _skip(self, batch: ConsumedBatch) -> bool:
        """Go on at the newest records when it is too far behind them."""
        timestamps = np.empty(len(batch), np.int64)
        batch.timestamps(timestamps)
        if time.time() * 1000 - timestamps.max() < _BEHIND_SECONDS * 1000:
            return False
        if self._histories:  # which need the records all the same
            for decoder in self._comparison.decoders:
                decoder.decode(batch)
            self._comparison.counts["skipped"] += len(batch)
            return True
        skipped = len(batch)
        for topic, number in self._transport.partitions:
            at = self._consumer.position([TopicPartition(topic, number)])[0]
            _, high = self._consumer.get_watermark_offsets(at)
            if 0 <= at.offset < high:
                skipped += high - at.offset
                self._consumer.seek(TopicPartition(topic, number, high))
        self._comparison.counts["skipped"] += skipped
        return True

    def _report(self) -> None:
        counts, self._comparison.counts = self._comparison.counts, Counter()
        with contextlib.suppress(OSError):  # the parent is gone, and the loop ends
            self._parent.send(counts)

    def _on_assign(self, consumer: clients.Consumer, partitions: list[TopicPartition]) -> None:
        self._transport.attach((one.topic, one.partition) for one in partitions)
        if self._histories:
            consumer.assign([TopicPartition(self._settings.input, *start) for start in self._recovered(consumer, partitions)])

    def _recovered(self, consumer: clients.Consumer, partitions: list[TopicPartition]) -> list[tuple[int, int]]:
        """Partitions and the offsets up to which both models have their histories."""
        starts = {}
        for at in consumer.committed(partitions, REQUEST_SECONDS):
            low, high = consumer.get_watermark_offsets(at, REQUEST_SECONDS)
            starts[at.partition] = at.offset if at.offset >= low else high
        for decoder, histories in self._histories:
            with reading(self._settings) as (reader, transport):
                catch_up(self._settings, reader, transport, decoder, histories, starts)
        return list(starts.items())

    def _on_revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        self._transport.drop_partitions((one.topic, one.partition) for one in partitions)
        for _, histories in self._histories:
            histories.drop(one.partition for one in partitions)
