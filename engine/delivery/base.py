"""From scores to Kafka: results are produced, and an offset is committed only after Kafka has its result.

    ConsumedBatch, Scored --send--> held --> batches in flight --poll--> acknowledged --> committed

`AtLeastOnce` (at_least_once.py) commits acknowledged positions; `ExactlyOnce` (exactly_once.py) puts results and offsets into
one transaction. Either ends the worker when Kafka refuses a result, and commits nothing of that batch or after it: the worker
starts again from the committed offsets. One worker owns a delivery and is the only one to change it.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.config import ServeSettings
from saker.engine.delivery.fast_path import FastPath
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.delivery.undeliverable import without_undeliverable
from saker.engine.errors import Fenced, RestartWorker
from saker.engine.kafka.batch import ConsumedBatch, Partition
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, TopicPartition, room_for
from saker.engine.kafka.rejected_record import rejected_record
from saker.engine.kafka.transport import Acknowledgement, DeliveryReports, Transport
from saker.engine.metrics.counts import Acknowledged, Counts
from saker.engine.model.active_model import NativeModel
from saker.engine.pipeline import Scored

# While five records of a partition are unanswered and more of it wait in librdkafka's idempotent producer (2.16), its thread
# polls without a pause. It takes a core from the broker, and on a busy machine there may be no answer for seconds (measured).
# So a few records go as they come, by a producer without a linger. More than that are held until all before them are
# acknowledged, and go as one batch by a producer whose linger is longer than handing them over takes: then one request of each
# partition has all of it, and nothing waits.
QUICK, MANY = 0, 1
LINGER_MS = (0.0, 1.0)

_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)
# Kafka's answers to a batch for the sake of one record in it.
_OF_ONE_RECORD = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
    KafkaError._INVALID_DIFFERENT_RECORD,
)
_POLL_SECONDS = 0.001  # while acknowledgements are due
_IDLE_SECONDS = 0.1
_CAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class HeldBatch:
    """One batch whose results are not produced yet, and the positions after it."""

    batch: ConsumedBatch
    positions: dict[Partition, int]
    scored: Scored
    since: float
    alone: bool


@dataclass(frozen=True, slots=True)
class InFlightBatch:
    """One batch whose results are produced, and how to recognise their acknowledgements."""

    positions: dict[Partition, int]
    timestamps_ms: NDArray[np.int64]
    scored: Scored
    since: float
    stage_seconds: Mapping[str, float]
    acknowledgements: tuple[Acknowledgement, ...]

    @property
    def in_order(self) -> bool:
        """Whether all that was sent before it is acknowledged, too, once it is. Of a rejection that is not known."""
        return all(one.in_order for one in self.acknowledgements)

    def done(self) -> bool:
        """Raises KafkaException when Kafka refused a result."""
        return all(one.done() for one in self.acknowledgements)


def sizes(settings: ServeSettings) -> dict[str, int]:
    """Settings of a producer that takes whatever the topics take."""
    return room_for(max(settings.output_limits.max_bytes, settings.rejected_limits.max_bytes))


class Delivery(ABC):
    """Sends results and commits positions, batch by batch, in the order in which the batches came."""

    def __init__(
        self,
        consumer: Consumer,
        transport: Transport,
        settings: ServeSettings,
        marker: InFlightMarker,
        fast_path: FastPath | None = None,
    ) -> None:
        self._consumer, self._transport, self._settings, self._fast_path = consumer, transport, settings, fast_path
        self._marker = marker
        self._held: list[HeldBatch] = []
        self._sent: deque[InFlightBatch] = deque()
        #: Records of the batches that are held or sent.
        self._records = 0
        #: After acknowledged results, and not known to be committed.
        self._positions: dict[Partition, int] = {}
        #: The highest of them so far.
        self._highest: dict[Partition, int] = {}
        #: Offsets that Kafka has committed for this worker.
        self._committed_offsets: dict[Partition, int] = {}
        self._counts = Counts()
        self._acknowledged: list[Acknowledged] = []

    @staticmethod
    @abstractmethod
    def producers(settings: ServeSettings, name: str) -> list[dict[str, Any]]:
        """Settings of the producers that it needs in its transport; `name` of the worker."""

    @property
    def in_flight(self) -> int:
        """Records that were consumed and whose results are not acknowledged, whoever sent them."""
        return self._records + (0 if self._fast_path is None else self._fast_path.in_flight)

    @property
    def full(self) -> bool:
        """Whether acknowledgements must come before more is consumed."""
        return self.in_flight >= self._settings.max_in_flight

    @property
    def holds(self) -> bool:
        """Whether results wait until those before them are acknowledged."""
        return bool(self._held)

    def committed(self, partition: Partition) -> int:
        """The offset of a partition that this worker has committed last; -1 before the first one."""
        return self._committed_offsets.get(partition, -1)

    def use_model(self, model: NativeModel | None) -> None:
        """What the fast path scores with from now on."""
        if self._fast_path is not None:
            self._fast_path.use_model(model, self._marker, self._settings)

    def consume(self, *, fast_path: bool = True) -> tuple[ConsumedBatch, list[KafkaError]]:
        """The next batch, and errors among its records. Waits for a record, but not while results wait to be produced.

        fast_path: whether records may be answered by it.
        """
        wait_seconds = 0.0 if self._held else _POLL_SECONDS if self._sent else _IDLE_SECONDS
        return self._consume(wait_seconds, fast_path=fast_path)

    def _consume(self, wait_seconds: float, *, fast_path: bool) -> tuple[ConsumedBatch, list[KafkaError]]:  # noqa: ARG002
        return self._transport.poll(self._settings.max_batch, wait_seconds)

    def wait(self) -> None:
        """For acknowledgements: while it is full or holds results, they are what comes next."""
        self.poll(_IDLE_SECONDS if self.full else _POLL_SECONDS)

    def send(self, batch: ConsumedBatch, positions: dict[Partition, int], scored: Scored, *, alone: bool = False) -> None:
        """Produce the results of a batch with the key, partition and headers of their records, now or by a later `poll`.

        positions: those of `batch`; they are the delivery's from now on. alone: one record, and nothing else is in flight.
        """
        self._records += len(batch)
        self._held.append(HeldBatch(batch, positions, scored, time.perf_counter(), alone))
        self._send_held()

    def _send_held(self) -> bool:
        """Produce all that is held, if that may be; returns whether there was something."""
        if not self._held or not self._may_send():
            return False
        self._begin_sending()
        held, self._held = self._held, []
        for one in held:
            self._sent.append(self._produce(one))
        return True

    def _produce(self, held: HeldBatch) -> InFlightBatch:
        started = time.perf_counter()
        batch, transport, settings = held.batch, self._transport, self._settings
        self._marker.note(held.positions, alone=held.alone)
        scored = without_undeliverable(batch, held.scored, settings.output_limits)
        reports = DeliveryReports()
        try:
            results = transport.send(batch, scored.indices, scored.results)
            for rejection in scored.rejections:
                origin = batch.origin(rejection.index)
                record = rejected_record(rejection, batch[rejection.index], origin, settings.rejected_limits)
                place = origin._replace(key=record.key, timestamp_ms=record.timestamp_ms, headers=record.headers)
                transport.send_one(settings.rejected, record.value, place, reports)
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        self._marker.done()
        timestamps_ms = np.empty(len(batch), np.int64)
        batch.timestamps(timestamps_ms)
        seconds = {**scored.stage_seconds, "produce": time.perf_counter() - started}
        # Of a batch without a result for every record it is not known that it is acknowledged after all that was sent before.
        acknowledgements = (results, reports) if len(scored.indices) < len(batch) else (results,)
        return InFlightBatch(held.positions, timestamps_ms, scored, held.since, seconds, acknowledgements)

    def poll(self, seconds: float = 0.0) -> None:
        """Drain acknowledgements; send what they allow, and commit what is due."""
        try:
            self._transport.poll_producers(seconds)
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        self._complete_acknowledged()
        self._send_held()
        self._commit_if_due()

    def _complete_acknowledged(self) -> None:
        try:
            while self._sent and self._sent[0].done() and (self._sent[0].in_order or not self._fast_path_in_flight()):
                self._complete(self._sent.popleft())
        except KafkaException as error:
            raise self._failure(error.args[0]) from error

    def _unacknowledged(self) -> list[dict[Partition, int]]:
        """The positions after each batch that is held or sent."""
        return [held.positions for held in self._held] + [sent.positions for sent in self._sent]

    def _fast_path_in_flight(self) -> int:
        return self.in_flight - self._records

    @abstractmethod
    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` until every result is acknowledged and its position committed; returns whether it is."""

    def abort(self) -> None:
        """The worker ends by an error, or with results that were not acknowledged. What is not committed is read again."""
        self._held.clear()  # records that are held would keep their consumer from closing

    def roll_back(self) -> None:  # noqa: B027 - those that raise `ReadAgain` have one
        """After `ReadAgain`: as if nothing that is not committed had been read."""

    @abstractmethod
    def drop_partitions(self, partitions: Iterable[Partition]) -> None:
        """Another consumer has them."""

    @abstractmethod
    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What Kafka answers to a commit by the consumer."""

    @abstractmethod
    def _may_send(self) -> bool:
        """Whether all that is held may be produced now. Changes nothing."""

    @abstractmethod
    def _begin_sending(self) -> None:
        """All that is held is produced next."""

    @abstractmethod
    def _commit_if_due(self) -> None: ...

    def _advance(self, positions: dict[Partition, int]) -> None:
        """Never back: the fast path may report its records after newer batches are complete."""
        for partition, after in positions.items():
            if after > self._highest.get(partition, -1):
                self._highest[partition] = self._positions[partition] = after

    def _complete(self, batch: InFlightBatch) -> None:
        self._records -= len(batch.timestamps_ms)
        self._advance(batch.positions)
        scored = batch.scored
        seconds = {**batch.stage_seconds, "acknowledge": time.perf_counter() - batch.since}
        self._acknowledged.append(Acknowledged(time.time(), batch.timestamps_ms, seconds, scored.threshold, scored.scores))
        for rejection in scored.rejections:
            self._counts.failed[rejection.reason] += 1
        self._counts.skipped.update(scored.skipped)

    def _collect(self) -> None:
        """What the fast path has acknowledged meanwhile."""
        if self._fast_path is None:
            return
        try:
            found = self._fast_path.drain_acknowledged()
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        if found is not None:
            positions, answered = found
            self._advance(positions)
            self._counts.add_answered(answered)

    def drain_counts(self) -> Counts:
        """What was counted since the last call."""
        self._collect()
        counts, self._counts = self._counts, Counts()
        counts.add_batches(self._acknowledged)
        self._acknowledged.clear()
        counts.in_flight = self.in_flight
        return counts

    def _cause(self, error: KafkaError) -> KafkaError:
        """The refusal behind a fatal error, which confluent_kafka raises before it reports the delivery."""
        deadline = time.monotonic() + _CAUSE_SECONDS
        while error.fatal() and error.code() not in _FENCED and time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                self._transport.producer.poll(_POLL_SECONDS)
            try:
                for sent in self._sent:
                    sent.done()
                if self._fast_path is not None:
                    self._fast_path.check()
            except KafkaException as refused:
                return refused.args[0]
        return error

    def _failure(self, error: KafkaError) -> Exception:
        output, error = self._settings.output, self._cause(error)
        if error.code() in _FENCED:
            return Fenced(
                f"another pool produces to {output} under the same name ({error.str()}): give this one another --instance"
            )
        if error.code() in _OF_ONE_RECORD:
            self._marker.note(self._in_flight_positions(), alone=self.in_flight == 1, refused=error.code())
            return RestartWorker(
                f"Kafka refused a result for {output} or {self._settings.rejected} ({error.str()}): the next worker sends the "
                "results of these records one by one, and rejects the record as undeliverable"
            )
        return RestartWorker(f"a result for {output} or {self._settings.rejected} was not delivered: {error.str()}")

    def _in_flight_positions(self) -> dict[Partition, int]:
        """The highest unacknowledged position of each partition."""
        highest = {} if self._fast_path is None else self._fast_path.in_flight_positions()
        for positions in self._unacknowledged():
            for partition, after in positions.items():
                highest[partition] = max(after, highest.get(partition, 0))
        return highest

    def _offsets(self) -> list[TopicPartition]:
        """To commit."""
        topic_id = self._settings.topic_id  # so that they cannot be taken for offsets of a later topic with the same name
        return [TopicPartition(topic, number, at, topic_id) for (topic, number), at in self._positions.items()]
