"""One worker process: Kafka in, Kafka out. Its model is proven before the first record is taken."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import time
from multiprocessing.connection import Connection
from types import FrameType

from engine import kafka
from engine.config import ServeSettings
from engine.delivery import Delivery
from engine.errors import SakerError, ServingError
from engine.kafka import KafkaError, TopicPartition
from engine.metrics import Counts
from engine.pipeline import ActiveModel, score_batch
from engine.registry import Located
from engine.transport import Partition, Taken, open_transport, producer_settings

_log = logging.getLogger("saker")

#: What a worker tells its parent, as (word, value): READY its `Backends`, COUNTED its `Counts` since the last time,
#: FAILED why the pool cannot go on.
READY, COUNTED, FAILED = "ready", "counted", "failed"

_TELL_SECONDS = 0.25
_IDLE_SECONDS = 0.1
_WAITING_SECONDS = 0.001
_SESSION_TIMEOUT_MS = 10_000  # a worker that does not come back holds its partitions for so long
_HEARTBEAT_MS = 500  # a member learns of a rebalance by its next heartbeat; partitions that move wait for that


def main(slot: int, settings: ServeSettings, located: Located, parent: Connection) -> None:
    """Entry point of the process. What a user must mend is told to the parent; anything else is a crash."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        worker = Worker(slot, settings, ActiveModel.load(located.path, located.name, settings.kernels), parent)
        gc.collect()
        gc.freeze()  # what is here now stays: a collection that walks it takes 20 ms, and none of it is ever free
        signal.signal(signal.SIGTERM, worker.stop)
        worker.run()
    except SakerError as error:
        parent.send((FAILED, str(error)))
        raise SystemExit(1) from error


class Worker:
    """Polls, scores, sends and commits until it is told to stop."""

    def __init__(self, slot: int, settings: ServeSettings, model: ActiveModel, parent: Connection) -> None:
        self._settings, self._model, self._parent = settings, model, parent
        self._parent_id = os.getppid()
        self._stopping = self._joined = False
        self._told = time.monotonic()
        self._assigned: set[Partition] = set()
        self._consumer = kafka.consumer(
            settings.bootstrap_servers,
            **{
                "group.id": settings.group,
                # A static member that is started again has its partitions back without a rebalance.
                "group.instance.id": f"{settings.instance}-{slot}",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": _SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": _HEARTBEAT_MS,
                "on_commit": self._on_commit,
            },
        )
        producer = kafka.producer(settings.bootstrap_servers, **producer_settings(settings.kernels))
        self._transport, why_public = open_transport(
            self._consumer, producer, settings.output, self._assigned, settings.kernels
        )
        self._backends = model.backends.on(self._transport.backend, why_public)
        self._delivery = Delivery(
            self._consumer,
            producer,
            self._transport,
            settings.output,
            settings.rejected,
            Counts(),
        )

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def run(self) -> None:
        self._consumer.subscribe(
            [self._settings.input],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        # A parent that was killed sends no signal; its children go to another parent.
        while not self._stopping and os.getppid() == self._parent_id:
            self._step()
            self._delivery.poll()
            if time.monotonic() - self._told >= _TELL_SECONDS:
                self._tell()
        if not self._delivery.drain(self._settings.drain_seconds):
            _log.warning("not everything was acknowledged in time; the rest is read again")
        self._tell()
        self._transport.close()
        self._consumer.close()

    def _step(self) -> None:
        """Take a batch and score it. It is gone when this returns: a client does not end while its records are held."""
        taken = self._take()
        if taken:
            self._score(taken)

    def _take(self) -> Taken | None:
        """What is there now. Nothing while too much is in flight."""
        in_flight = self._delivery.in_flight
        if in_flight >= self._settings.max_in_flight:
            self._delivery.poll(_IDLE_SECONDS)
            return None
        # Acknowledgements are taken between two polls, so the wait is short while some are due.
        taken, errors = self._transport.take(self._settings.max_batch, _WAITING_SECONDS if in_flight else _IDLE_SECONDS)
        for error in errors:
            _check(error, self._settings)
        return taken

    def _score(self, taken: Taken) -> None:
        scored = score_batch(self._model, taken)
        counts = self._delivery.counts
        counts.batch_records.observe(len(taken))
        for stage, seconds in scored.stage_seconds.items():
            counts.stages[stage].observe(seconds)
        self._delivery.send(taken, scored)

    def _tell(self) -> None:
        self._told = time.monotonic()
        counts = self._delivery.counts
        counts.lag = self._lag()
        self._delivery.counts = Counts()
        with contextlib.suppress(OSError):  # the parent is gone; the loop ends by itself
            self._parent.send((COUNTED, counts))
            if self._joined:
                self._parent.send((READY, self._backends))

    def _lag(self) -> int:
        lag = 0
        for position in self._consumer.position([TopicPartition(*partition) for partition in self._assigned]):
            _, high = self._consumer.get_watermark_offsets(position, cached=True)
            if high > 0:
                lag += high - max(position.offset, 0)
        return lag

    def _on_assign(self, _: object, partitions: list[TopicPartition]) -> None:
        self._joined = True
        self._transport.follow(_names(partitions))
        self._assigned |= _names(partitions)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._delivery.on_commit(error, partitions)

    def _on_revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight before another member reads on from the committed offsets."""
        self._delivery.drain(self._settings.drain_seconds)
        self._on_lost(None, partitions)

    def _on_lost(self, _: object, partitions: list[TopicPartition]) -> None:
        """What is not committed is read again by the new owner: twice, not lost."""
        self._assigned -= _names(partitions)
        self._delivery.forget(_names(partitions))


def _names(partitions: list[TopicPartition]) -> set[Partition]:
    return {(partition.topic, partition.partition) for partition in partitions}


def _check(error: KafkaError, settings: ServeSettings) -> None:
    """Errors of a consumer pass by themselves, unless they are fatal or the topic is gone."""
    fatal = error.fatal() or error.code() == KafkaError._FATAL
    if fatal and "fenced" in error.str():
        raise ServingError(
            f"another pool serves group {settings.group} as instance {settings.instance}: give this one another --instance",
        )
    if fatal or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise ServingError(f"topic {settings.input} at {settings.bootstrap_servers}: {error.str()}")
