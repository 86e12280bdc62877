"""At least once: results go as they come, a few at a time, or in waves; offsets are committed behind acknowledged ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

from saker.engine.config import ServeSettings
from saker.engine.delivery.base import LINGER_MS, MANY, QUICK, Delivery
from saker.engine.kafka.batch import Partition
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, TopicPartition
from saker.engine.kafka.transport import Transport

_COMMIT_SECONDS = 0.05

_FEW = 4  # of a partition
_LEAST_PARTITIONS = 2  # so that four records of one partition alone are no wave
# A wave of up to so many does not wait for its linger: a flush ends that, as soon as librdkafka's thread has seen it. Of larger
# ones the next batch had better be scored in that time.
_PUSHED = 500
_PUSH_SECONDS = 0.001  # flush knows whole milliseconds


class AtLeastOnce(Delivery):
    """Offsets are committed behind acknowledged results; what a crash finds in flight is scored again."""

    @staticmethod
    def producers(settings: ServeSettings, name: str) -> list[dict[str, Any]]:  # noqa: ARG004 - no need of it
        lingers = LINGER_MS if settings.linger_ms is None else (settings.linger_ms,)
        return [{"linger.ms": linger} for linger in lingers]

    def __init__(self, consumer: Consumer, transport: Transport, settings: ServeSettings) -> None:
        super().__init__(consumer, transport, settings)
        self._committed = 0.0

    def _may_send(self) -> bool:
        transport = self._transport
        few = self._unanswered <= self._few()
        if self._windows or transport.in_flight:
            return few and transport.place == QUICK
        transport.send_by(QUICK if few else transport.places - 1)
        return True

    def _send_held(self) -> bool:
        sent = super()._send_held()
        if sent and self._transport.place == MANY and self.in_flight <= _PUSHED:
            self._transport.producer.flush(_PUSH_SECONDS)
        return sent

    def _few(self) -> int:
        return _FEW * max(self._transport.partitions, _LEAST_PARTITIONS)

    def room_for_few(self) -> int:
        if not self.in_flight:
            self._transport.send_by(QUICK)  # whose producer it is
        elif self._held or self._transport.place != QUICK or not all(window.in_order for window in self._windows):
            return 0
        return max(self._few() - self.in_flight, 0)

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
        """What failed, as it does while the group rebalances, stays and goes with the next one."""
        for partition in partitions:
            key = (partition.topic, partition.partition)
            if error is None and partition.error is None and self._positions.get(key) == partition.offset:
                del self._positions[key]

    def drain(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        self._collect()
        while (self._unanswered or self._positions) and time.monotonic() < deadline:
            self.poll(0.02 if self._unanswered else 0.0)
            self._collect()
            if self._positions and not self._unanswered:
                with contextlib.suppress(KafkaException):  # the group rebalances: again, until the deadline
                    self._commit(wait=True)
        return not (self._unanswered or self._positions)

    def forget(self, partitions: Iterable[Partition]) -> None:
        partitions = list(partitions)
        self._transport.forget(partitions)
        for partition in partitions:
            self._positions.pop(partition, None)
            self._behind.pop(partition, None)
            for positions in self._unacknowledged():
                positions.pop(partition, None)
