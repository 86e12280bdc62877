"""Exactly once: results and offsets in transactions, so `read_committed` consumers see each result once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from saker.engine.config import ServeSettings
from saker.engine.delivery.base import LINGER_MS, MANY, Delivery, sizes
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.errors import ReadAgain, RestartWorker
from saker.engine.kafka.batch import Partition
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from saker.engine.kafka.transport import Transport
from saker.engine.metrics.counts import Counts

# For each step that ends a transaction. librdkafka retries for a minute what cannot succeed after a broker was away for longer
# than a session, since this worker is no longer a member. It is also the time after which Kafka aborts the transaction of
# a lost machine, for which the next owner of its partitions waits.
_TRANSACTION_SECONDS = 10.0


class ExactlyOnce(Delivery):
    """Results and offsets of a stretch of time go into one transaction.

    Two producers alternate. While Kafka commits the transaction of one, results go into the other's, which is committed after
    it and only if it was. A restarted worker has the same transactional ids, so it aborts what its predecessor left open, and
    fences it. A transaction that cannot be committed is aborted together with the next one, and the worker continues at the
    committed offsets. It restarts for that, unless Kafka refused the transaction, as it does when the group rebalances.
    """

    @staticmethod
    def producers(settings: ServeSettings, name: str) -> list[dict[str, Any]]:
        # A result in a transaction is seen later than a linger anyway.
        linger = LINGER_MS[MANY] if settings.linger_ms is None else settings.linger_ms
        open_ms = int(1000 * (_TRANSACTION_SECONDS + settings.transaction_seconds))
        same = {"linger.ms": linger, "transaction.timeout.ms": open_ms, **sizes(settings)}
        return [same | {"transactional.id": f"{settings.group}-{name}-{place}"} for place in range(2)]

    def __init__(self, consumer: Consumer, transport: Transport, settings: ServeSettings, marker: InFlightMarker) -> None:
        super().__init__(consumer, transport, settings, marker)
        self._began: float | None = None
        self._threads = ThreadPoolExecutor(1, "commit")
        self._committing: Future[None] | None = None
        #: Counts of the transaction that is being committed, and of those before it, which alone are reported.
        self._in_commit, self._committed = Counts(), Counts()
        self._positions_in_commit: dict[Partition, int] = {}

    def _may_send(self) -> bool:
        return not self._sent

    def _begin_sending(self) -> None:
        if self._began is not None:
            return
        try:
            self._transport.producer.begin_transaction()
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        self._began = time.monotonic()

    def _commit_if_due(self) -> None:
        if self._committing is not None and self._committing.done():
            self._await_commit()
        if self._began is not None and time.monotonic() - self._began >= self._settings.transaction_seconds:
            self._commit()

    def _commit(self) -> None:
        """Wait for the results in flight. They are committed with their offsets while the other producer continues."""
        self._await_commit()
        producer = self._transport.producer
        producer.flush(_TRANSACTION_SECONDS)
        self._complete_acknowledged()
        if self._sent:
            raise RestartWorker("results were not acknowledged in time")
        group = self._consumer.consumer_group_metadata()
        self._committing = self._threads.submit(_commit_transaction, producer, self._offsets(), group)
        self._in_commit, self._counts = self._counts, Counts()
        self._in_commit.add_batches(self._acknowledged)
        self._acknowledged.clear()
        self._positions_in_commit = dict(self._positions)
        self._positions.clear()
        self._began = None
        self._transport.use_producer((self._transport.place + 1) % self._transport.places)

    def _await_commit(self) -> None:
        """Of the transaction before this one.

        librdkafka (2.16) hands over offsets for a minute, or for ever, if the broker goes away just then, whatever time it is
        given.
        """
        committing, self._committing = self._committing, None
        if committing is None:
            return
        try:
            committing.result(_TRANSACTION_SECONDS)
        except TimeoutError:
            raise RestartWorker("a transaction was not committed in time") from None
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                raise ReadAgain(f"Kafka refused a transaction: {error.args[0].str()}") from error
            raise self._failure(error.args[0]) from error
        self._committed.add(self._in_commit)
        self._in_commit = Counts()
        self._committed_offsets.update(self._positions_in_commit)

    def drain_counts(self) -> Counts:
        counts, self._committed = self._committed, Counts()
        counts.in_flight = self.in_flight
        return counts

    def roll_back(self) -> None:
        """After `ReadAgain`: forget everything that is not committed."""
        with contextlib.suppress(ReadAgain):
            self._await_commit()
        if self._transport.producer.flush(_TRANSACTION_SECONDS):
            raise RestartWorker("results were not acknowledged in time")
        self.abort()
        self._sent.clear()
        self._records, self._began = 0, None
        self._counts, self._in_commit = Counts(), Counts()
        for uncommitted in (self._acknowledged, self._positions, self._highest):
            uncommitted.clear()

    def abort(self) -> None:
        """Also abort an open transaction; otherwise `read_committed` consumers wait for its timeout."""
        super().abort()
        if self._began is not None:
            _abort_transaction(self._transport.producer)

    def drain(self, seconds: float) -> bool:  # noqa: ARG002 - a transaction has its own timeout
        while self._began is not None or self._held:
            self._send_held()
            self._commit()
        self._await_commit()
        return True

    def drop_partitions(self, partitions: Iterable[Partition]) -> None:
        """Committed or, if they were lost, in doubt: then give up the whole transaction."""
        gone = set(partitions)
        if any(gone & positions.keys() for positions in (*self._unacknowledged(), self._positions)):
            raise ReadAgain("partitions of an open transaction went to another consumer")
        for partition in gone:
            self._highest.pop(partition, None)
            self._committed_offsets.pop(partition, None)

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The consumer commits nothing: the transaction does."""


def _commit_transaction(producer: Producer, offsets: list[TopicPartition], group: object) -> None:
    """Results are acknowledged already. Raises KafkaException, and then it is aborted."""
    try:
        _again(lambda seconds: producer.send_offsets_to_transaction(offsets, group, seconds))
        _again(producer.commit_transaction)
    except KafkaException:
        _abort_transaction(producer)
        raise


def _abort_transaction(producer: Producer) -> None:
    with contextlib.suppress(KafkaException):  # fenced: whoever fenced this one has aborted it
        producer.abort_transaction(_TRANSACTION_SECONDS)


def _again(call: Callable[[float], None]) -> None:
    """Repeat the call while Kafka reports a retriable error, until the time limit."""
    deadline = time.monotonic() + _TRANSACTION_SECONDS
    while True:
        try:
            return call(max(deadline - time.monotonic(), 0.1))
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
