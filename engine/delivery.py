"""From scores to Kafka: results are produced, and a record's offset is committed only behind its result.

    Taken, Scored --send--> windows in flight --poll--> acknowledged --> committed

`AtLeastOnce` commits what is acknowledged; `ExactlyOnce` puts results and offsets into one transaction. Either ends the worker
when Kafka refuses a result, and nothing of its batch or behind it is committed: it starts again from the committed offsets.
One worker owns a delivery.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.config import ServeSettings
from engine.errors import Fenced, ServingError
from engine.kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from engine.metrics import Counts
from engine.pipeline import Scored
from engine.rejected import rejected_record
from engine.transport import Origin, Partition, Taken, Transport

COMMIT_SECONDS = 0.05
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)
# For each step that ends a transaction. By itself librdkafka tries for a minute what cannot succeed after a broker was away for
# longer than a session: this member is no longer one.
_TRANSACTION_SECONDS = 10.0


class DeliveryFailed(Exception):
    """Kafka gave up on a result or a transaction. The worker must start again from the committed offsets."""


@dataclass(slots=True)
class _Window:
    """One batch in flight: how many acknowledgements it waits for, and the positions behind it."""

    records: int
    waits_for: int
    positions: dict[Partition, int]
    timestamps_ms: NDArray[np.int64]
    scored: Scored
    sent: float
    errors: list[KafkaError] = field(default_factory=list)

    def acknowledge(self, error: KafkaError | None, _: Message) -> None:
        self.waits_for -= 1
        if error is not None:
            self.errors.append(error)


class Delivery(ABC):
    """Sends results and commits positions, batch by batch, in the order in which the batches came."""

    def __init__(self, consumer: Consumer, transport: Transport, settings: ServeSettings) -> None:
        self._consumer, self._transport, self._settings = consumer, transport, settings
        self._windows: deque[_Window] = deque()
        #: Behind acknowledged results, and not known to be committed.
        self._positions: dict[Partition, int] = {}
        self.counts = Counts()
        self._acknowledged: list[tuple[float, NDArray[np.float64]]] = []

    @property
    def in_flight(self) -> int:
        """Records whose results are produced and not known to be acknowledged."""
        return sum(window.records for window in self._windows)

    def send(self, taken: Taken, positions: dict[Partition, int], scored: Scored) -> None:
        """Produce the results of a batch with the key, partition and headers of their records.

        positions: those of `taken`; they are this one's now.
        """
        started = time.perf_counter()
        timestamps = np.empty(len(taken), np.int64)
        taken.timestamps(timestamps)
        window = _Window(len(taken), 0, positions, timestamps, scored, started)
        transport, delivered = self._transport, window.acknowledge
        try:
            self._begin()
            expected = transport.send(taken, scored.indices, scored.results, delivered)
            for rejection in scored.rejections:
                origin = Origin(*taken.origin(rejection.index))
                value, headers = rejected_record(rejection, taken[rejection.index], origin, self._settings.rejected_max_bytes)
                transport.send_one(self._settings.rejected, value, origin, delivered, headers)
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        window.waits_for += expected + len(scored.rejections)  # with a full queue some have come already
        self._windows.append(window)
        self.counts.stages["produce"].observe(time.perf_counter() - started)

    def poll(self, seconds: float = 0.0) -> None:
        """Take acknowledgements; commit what they allow when it is time."""
        self._transport.producer.poll(seconds)
        self._check()
        while self._windows and not self._windows[0].waits_for:
            self._complete(self._windows.popleft())
        self._commit_if_due()

    @abstractmethod
    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` until every result is acknowledged and its position committed; say whether it is."""

    @abstractmethod
    def forget(self, partitions: Iterable[Partition]) -> None:
        """Partitions are another consumer's now."""

    @abstractmethod
    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What Kafka says of a commit by the consumer."""

    @abstractmethod
    def _begin(self) -> None:
        """Before results are produced."""

    @abstractmethod
    def _commit_if_due(self) -> None: ...

    def _check(self) -> None:
        if (failure := self._transport.failure()) is not None:
            raise self._failure(failure)

    def _complete(self, window: _Window) -> None:
        if window.errors:
            raise self._failure(window.errors[0])
        self._positions.update(window.positions)
        counts, scored = self.counts, window.scored
        if len(scored.scores):
            self._acknowledged.append((scored.threshold, scored.scores))
        for rejection in scored.rejections:
            counts.failed[rejection.reason] += 1
        counts.stages["acknowledge"].observe(time.perf_counter() - window.sent)
        counts.latency.observe_since(time.time(), window.timestamps_ms)

    def take_counts(self) -> Counts:
        """What was counted since the last time."""
        counts, self.counts = self.counts, Counts()
        counts.add_scores(self._acknowledged)
        self._acknowledged.clear()
        counts.in_flight = self.in_flight
        return counts

    def _failure(self, error: KafkaError) -> Exception:
        output = self._settings.output
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return ServingError(
                f"a record fitted the input topic and its answer does not fit {output} or {self._settings.rejected}: "
                "raise max.message.bytes of both above that of the input topic and start again; nothing is lost",
            )
        if error.code() in _FENCED:
            return Fenced(
                f"another pool produces to {output} under the same name ({error.str()}): give this one another --instance"
            )
        return DeliveryFailed(f"a result was not delivered: {error.str()}")

    def _offsets(self) -> list[TopicPartition]:
        return [TopicPartition(topic, number, at) for (topic, number), at in self._positions.items()]


class AtLeastOnce(Delivery):
    """Offsets are committed behind acknowledged results; what a crash finds in flight is scored again."""

    _committed = 0.0

    def _begin(self) -> None:
        """There is nothing to begin."""

    def _commit_if_due(self) -> None:
        if self._positions and time.monotonic() - self._committed >= COMMIT_SECONDS:
            self._commit(wait=False)

    def _commit(self, *, wait: bool) -> None:
        self._committed = time.monotonic()
        answer = self._consumer.commit(offsets=self._offsets(), asynchronous=not wait)
        if wait:
            self.on_commit(None, answer)

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What failed, as it does while the group rebalances, stays and goes with the next one."""
        for partition in partitions:
            key = (partition.topic, partition.partition)
            if error is None and partition.error is None and self._positions.get(key) == partition.offset:
                del self._positions[key]

    def drain(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (self._windows or self._positions) and time.monotonic() < deadline:
            self.poll(0.02 if self._windows else 0.0)
            if self._positions and not self._windows:
                with contextlib.suppress(KafkaException):  # the group rebalances: again, until the deadline
                    self._commit(wait=True)
        return not (self._windows or self._positions)

    def forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            for window in self._windows:
                window.positions.pop(partition, None)


class ExactlyOnce(Delivery):
    """Results and offsets of a stretch of time go into one transaction: who reads committed records sees each result once.

    A worker that is started again under the same transactional id aborts what the one before left open, and that one is
    fenced. A transaction that cannot be committed is aborted, and the worker starts again from the committed offsets.
    """

    _began: float | None = None

    def _begin(self) -> None:
        if self._began is None:
            self._transport.producer.begin_transaction()
            self._began = time.monotonic()

    def _commit_if_due(self) -> None:
        if self._began is not None and time.monotonic() - self._began >= self._settings.transaction_seconds:
            self._commit()

    def _commit(self) -> None:
        """Wait for what is in flight, and commit it with its offsets."""
        try:
            self._transport.producer.flush(_TRANSACTION_SECONDS)
            self._check()
            while self._windows:
                window = self._windows.popleft()
                if window.waits_for:
                    raise DeliveryFailed("results were not acknowledged in time")
                self._complete(window)
            self._again(self._send_offsets)
            self._again(self._transport.producer.commit_transaction)
        except KafkaException as error:
            self._abort()
            raise self._failure(error.args[0]) from error
        except DeliveryFailed:
            self._abort()
            raise
        self._positions.clear()
        self._began = None

    def _send_offsets(self, seconds: float) -> None:
        self._transport.producer.send_offsets_to_transaction(self._offsets(), self._consumer.consumer_group_metadata(), seconds)

    def _again(self, call: Callable[[float], None]) -> None:
        """Calls that Kafka says may be made again are, until the time is up."""
        deadline = time.monotonic() + _TRANSACTION_SECONDS
        while True:
            try:
                return call(max(deadline - time.monotonic(), 0.1))
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _abort(self) -> None:
        self._began = None
        with contextlib.suppress(KafkaException):  # fenced: whoever fenced this one has aborted it
            self._transport.producer.abort_transaction(_TRANSACTION_SECONDS)

    def drain(self, seconds: float) -> bool:  # noqa: ARG002 - the transaction has a time of its own
        if self._began is not None:
            self._commit()
        return True

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Committed or, if they were lost, in doubt: then the whole transaction is given up."""
        gone = set(partitions)
        if any(gone & window.positions.keys() for window in self._windows) or gone & self._positions.keys():
            self._abort()
            raise DeliveryFailed("partitions of an open transaction went to another consumer")

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The consumer commits nothing: the transaction does."""
