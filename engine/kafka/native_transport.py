"""The transport on librdkafka's own handles: no Python object for a record, its result or its delivery."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from saker.engine.kafka.batch import Partition, PublicTaken, Taken
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, Producer
from saker.engine.kafka.librdkafka_handle import handle, library
from saker.engine.kafka.transport import Delivered, Indices, Transport
from saker.engine.kernels import native as load_native
from saker.engine.metrics.counts import ANSWERED, Answered

if TYPE_CHECKING:
    from saker.engine.model.active_model import NativeModel

_EVENTS_SECONDS = 0.01  # a rebalance waits so long at most


class NativeTransport(Transport):
    """On librdkafka itself: no Python object for a record, its result or its delivery."""

    backend = "native"

    def __init__(
        self, native: ModuleType, consumer: Consumer, producers: Sequence[Producer], output: str, assigned: set[Partition]
    ) -> None:
        """Raises OSError or ValueError where a client does not look as it should."""
        super().__init__(consumer, producers, output, assigned)
        self._messages, self._lines = native.Messages, native.Lines
        self._events_due = 0.0
        native.open_librdkafka(library())
        self._taker = native.Taker(consumer, handle(consumer))
        self._senders = [native.Sender(producer, handle(producer), output) for producer in producers]
        self._express = native.Express(self._taker, self._senders[0])
        self._input = ""

    def follow(self, partitions: Iterable[Partition]) -> None:
        for topic, partition in partitions:
            self._taker.forward(topic, partition)
            self._input = topic

    @property
    def in_flight(self) -> int:
        return int(self._express.in_flight())

    def answer_by(self, model: NativeModel | None, journal: Any, late_ms: float | None = None) -> None:
        self._express.use(model, journal, math.inf if late_ms is None else late_ms)

    def tell(self) -> tuple[dict[Partition, int], Answered] | None:
        positions, batches, timestamps, scores, flagged = self._express.tell()
        if not scores:
            return None
        of_batches = np.frombuffer(batches).reshape(-1, len(ANSWERED))
        answered = Answered(of_batches, np.frombuffer(timestamps, np.int64), np.frombuffer(scores), flagged)
        return {(self._input, partition): behind for partition, behind in positions.items()}, answered

    def forget(self, partitions: Iterable[Partition]) -> None:
        for _, partition in partitions:
            self._express.forget(partition)

    def take(self, most: int, wait_seconds: float, few: int = 0) -> tuple[Taken, list[KafkaError]]:
        if (now := time.monotonic()) >= self._events_due:
            self._events_due = now + _EVENTS_SECONDS
            event = self._consumer.poll(0)  # serves rebalances and commits
            if event is not None:
                error = event.error()
                # A record may have got here before its partition was forwarded.
                return PublicTaken([] if error else [event]), [error] if error else []
        taken, errors = self._express.take(most, round(min(wait_seconds, _EVENTS_SECONDS) * 1000), few)
        return taken, [KafkaError(code, text) for code, text in errors]

    def send(
        self, taken: Taken, indices: Indices, results: Sequence[bytes], delivered: Delivered
    ) -> tuple[int, Callable[[], bool]]:
        """`delivered` is not called: Kafka takes the results of a partition in order, so counting them is enough."""
        if not isinstance(taken, self._messages) or not isinstance(results, self._lines):
            return super().send(taken, indices, results, delivered)
        sender, place = self._senders[self.place], 0
        while True:
            place, code, mark = sender.send(taken, indices, results, place)
            if code:
                raise KafkaException(KafkaError(code))
            if mark is not None:
                return 0, partial(sender.delivered, mark)
            self.producer.poll(0.01)  # the queue is full

    def failure(self) -> KafkaError | None:
        code = self._senders[self.place].failure()
        return KafkaError(code) if code else None

    def close(self) -> None:
        self._taker.close()


def producer_settings(kernels: str) -> dict[str, str]:
    """What the producer of a native transport needs from its start."""
    native, _ = load_native(kernels)
    if native is None or native.__file__ is None:
        return {}
    try:
        native.open_librdkafka(library())
    except OSError:
        return {}  # `open_transport` tells
    return {"plugin.library.paths": native.__file__}


def open_transport(
    consumer: Consumer, producers: Sequence[Producer], output: str, assigned: set[Partition], kernels: str
) -> tuple[Transport, str]:
    """The native one where it can be had; otherwise the public one, and why."""
    native, reason = load_native(kernels)
    if native is not None:
        try:
            return NativeTransport(native, consumer, producers, output, assigned), ""
        except (OSError, ValueError) as error:
            reason = f"confluent_kafka's clients are not as expected: {error}"
    return Transport(consumer, producers, output, assigned), reason
