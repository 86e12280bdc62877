"""At least once: offsets are committed after acknowledged results. Few records go as they come; many go as batches, each of
which waits for the previous acknowledgement.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

from saker.engine.config import ServeSettings
from saker.engine.delivery.base import LINGER_MS, MANY, QUICK, Delivery, sizes
from saker.engine.delivery.fast_path import FastPath
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.kafka.batch import ConsumedBatch, Partition
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, TopicPartition
from saker.engine.kafka.native_transport import NativeTransport
from saker.engine.kafka.transport import Transport

_COMMIT_SECONDS = 0.05
_LAST_COMMIT_SECONDS = 1.0

_FEW = 4  # of a partition
_LEAST_PARTITIONS = 2  # so that four records of one partition alone are few
# Up to so many records do not wait for their linger: a flush ends it as soon as librdkafka's thread has seen that. With more,
# the time is better spent on scoring the next batch.
_PUSHED = 500
_PUSH_SECONDS = 0.001  # flush knows whole milliseconds


class AtLeastOnce(Delivery):
    """What a crash finds in flight is scored again."""

    @staticmethod
    def producers(settings: ServeSettings, name: str) -> list[dict[str, Any]]:  # noqa: ARG004 - no need of it
        lingers = LINGER_MS if settings.linger_ms is None else (settings.linger_ms,)
        # After a batch that Kafka refuses, librdkafka would continue, and the repeated records would come after later ones.
        return [{"linger.ms": linger, "enable.gapless.guarantee": True, **sizes(settings)} for linger in lingers]

    def __init__(self, consumer: Consumer, transport: Transport, settings: ServeSettings, marker: InFlightMarker) -> None:
        fast_path = FastPath(transport, settings.input) if isinstance(transport, NativeTransport) else None
        super().__init__(consumer, transport, settings, marker, fast_path)
        self._committed = 0.0

    def _few(self) -> int:
        return _FEW * max(len(self._transport.partitions), _LEAST_PARTITIONS)

    def _may_send(self) -> bool:
        if self._sent or self._fast_path_in_flight():
            return self._transport.place == QUICK and self.in_flight <= self._few()
        return True

    def _begin_sending(self) -> None:
        if not self._sent and not self._fast_path_in_flight():
            self._transport.use_producer(QUICK if self.in_flight <= self._few() else self._transport.places - 1)

    def _send_held(self) -> bool:
        sent = super()._send_held()
        if sent and self._transport.place == MANY and self._records <= _PUSHED:
            try:
                self._transport.producer.flush(_PUSH_SECONDS)
            except KafkaException as error:
                raise self._failure(error.args[0]) from error
        return sent

    def _consume(self, wait_seconds: float, *, fast_path: bool) -> tuple[ConsumedBatch, list[KafkaError]]:
        if self._fast_path is None:
            return super()._consume(wait_seconds, fast_path=fast_path)
        room = self._fast_path_room() if fast_path else 0
        if room and not self._records:
            self._transport.use_producer(QUICK)  # by which the fast path sends: what comes after it has to keep its order
        return self._fast_path.poll(self._settings.max_batch, wait_seconds, room)

    def _fast_path_room(self) -> int:
        """How many records the fast path may have in flight. Its positions are committed as they are acknowledged, so before
        them nothing may be in flight whose acknowledgement theirs does not imply."""
        if self._records and (self._held or self._transport.place != QUICK or not all(batch.in_order for batch in self._sent)):
            return 0
        return max(self._few() - self._records, 0)

    def _commit_if_due(self) -> None:
        if time.monotonic() - self._committed >= _COMMIT_SECONDS:
            self._collect()
            if self._positions:
                self._commit(wait=False)

    def _commit(self, *, wait: bool) -> None:
        self._committed = time.monotonic()
        answer = self._consumer.commit(offsets=self._offsets(), asynchronous=not wait)
        if wait:
            self.on_commit(None, answer)

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What failed, as it does while the group rebalances, stays and goes with the next commit."""
        for partition in partitions:
            key = (partition.topic, partition.partition)
            if error is None and partition.error is None:
                self._committed_offsets[key] = partition.offset
                if self._positions.get(key) == partition.offset:
                    del self._positions[key]

    def drain(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        self._collect()
        while (self.in_flight or self._positions) and time.monotonic() < deadline:
            self.poll(0.02 if self.in_flight else 0.0)
            self._collect()
            if self._positions and not self.in_flight:
                with contextlib.suppress(KafkaException):  # the group rebalances: again, until the deadline
                    self._commit(wait=True)
        return not (self.in_flight or self._positions)

    def abort(self) -> None:
        """Commit what is acknowledged; otherwise each worker that ends like this one would score it again."""
        super().abort()
        deadline = time.monotonic() + _LAST_COMMIT_SECONDS
        with contextlib.suppress(KafkaException, RuntimeError):  # the group rebalances, or the consumer is closed
            if self._positions:
                self._commit(wait=False)
            while self._positions and time.monotonic() < deadline:
                self._consumer.poll(0.01)

    def drop_partitions(self, partitions: Iterable[Partition]) -> None:
        gone = set(partitions)
        if self._fast_path is not None:
            self._fast_path.drop_partitions(gone)
        for partition in gone:
            for positions in (self._positions, self._highest, self._committed_offsets, *self._unacknowledged()):
                positions.pop(partition, None)
