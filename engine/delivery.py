"""At least once: results are produced, and a record's offset is committed only after its result is acknowledged.

A result that Kafka refuses ends the worker, and nothing of its batch or behind it is committed.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import ServingError
from engine.kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from engine.metrics import Counts
from engine.pipeline import Scored
from engine.rejection import Rejection
from engine.transport import Origin, Partition, Taken, Transport

COMMIT_SECONDS = 0.05


class DeliveryFailed(Exception):
    """Kafka gave up on a result. The worker must start again from the committed offsets."""


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


class Delivery:
    """Sends results and commits positions, batch by batch, in the order in which the batches came."""

    def __init__(self, consumer: Consumer, producer: Producer, transport: Transport, output: str, rejected: str) -> None:
        self._consumer, self._producer, self._transport = consumer, producer, transport
        self._output, self._rejected = output, rejected
        self._windows: deque[_Window] = deque()
        #: Behind acknowledged results, and not known to be committed: a commit fails while the group rebalances.
        self._positions: dict[Partition, int] = {}
        self._committed = time.monotonic()
        self.counts = Counts()
        self._acknowledged: list[tuple[float, NDArray[np.float64]]] = []

    @property
    def in_flight(self) -> int:
        """Records whose results are produced and not known to be acknowledged."""
        return sum(window.records for window in self._windows)

    def send(self, taken: Taken, scored: Scored) -> None:
        """Produce the results of a batch with the key, partition and headers of their records."""
        started = time.perf_counter()
        timestamps = np.empty(len(taken), np.int64)
        taken.timestamps(timestamps)
        window = _Window(
            len(taken),
            0,
            taken.positions(),
            timestamps,
            scored,
            started,
        )
        transport, delivered = self._transport, window.acknowledge
        try:
            expected = transport.send(taken, scored.indices, scored.results, delivered)
            for rejection in scored.rejections:
                origin = Origin(*taken.origin(rejection.index))
                headers = [*(origin.headers or ()), *_error_headers(rejection, origin)]
                transport.send_one(self._rejected, taken[rejection.index], origin, delivered, headers)
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        window.waits_for += expected + len(scored.rejections)  # with a full queue some have come already
        self._windows.append(window)
        self.counts.stages["produce"].observe(time.perf_counter() - started)

    def poll(self, seconds: float = 0.0) -> None:
        """Take acknowledgements; commit what they allow when the last commit is long enough ago."""
        self._producer.poll(seconds)
        if (failure := self._transport.failure()) is not None:
            raise self._failure(failure)
        while self._windows and not self._windows[0].waits_for:
            self._complete(self._windows.popleft())
        if self._positions and time.monotonic() - self._committed >= COMMIT_SECONDS:
            self._commit(wait=False)

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
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return ServingError(
                f"a record fitted the input topic and its answer does not fit {self._output} or {self._rejected}: "
                "raise max.message.bytes of both above that of the input topic and start again; nothing is lost",
            )
        return DeliveryFailed(f"a result was not delivered: {error.str()}")

    def _commit(self, *, wait: bool) -> None:
        self._committed = time.monotonic()
        offsets = [TopicPartition(topic, number, at) for (topic, number), at in self._positions.items()]
        answer = self._consumer.commit(offsets=offsets, asynchronous=not wait)
        if wait:
            self.on_commit(None, answer)

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """Take what Kafka says of a commit; what failed stays and goes with the next one."""
        for partition in partitions:
            key = (partition.topic, partition.partition)
            if error is None and partition.error is None and self._positions.get(key) == partition.offset:
                del self._positions[key]

    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` until every result is acknowledged and its position committed; say whether it is."""
        deadline = time.monotonic() + seconds
        while (self._windows or self._positions) and time.monotonic() < deadline:
            self.poll(0.02 if self._windows else 0.0)
            if self._positions and not self._windows:
                with contextlib.suppress(KafkaException):  # the group rebalances: again, until the deadline
                    self._commit(wait=True)
        return not (self._windows or self._positions)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Give up positions of partitions that are another consumer's now."""
        for partition in partitions:
            self._positions.pop(partition, None)
            for window in self._windows:
                window.positions.pop(partition, None)


def _error_headers(rejection: Rejection, origin: Origin) -> list[tuple[str, bytes]]:
    told = {
        "code": rejection.reason,
        "field": rejection.field or "",
        "message": rejection.message,
        "topic": origin.topic,
        "partition": origin.partition,
        "offset": origin.offset,
    }
    return [(f"saker.error.{name}", str(value).encode()) for name, value in told.items()]
