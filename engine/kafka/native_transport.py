"""The transport on librdkafka itself: no Python object for a record, its result or its acknowledgement.

It works on the handles of confluent_kafka's clients (librdkafka_handle.py). Configuration, group membership, commits and
callbacks stay confluent_kafka's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from saker.engine.errors import ServingError
from saker.engine.kafka.batch import ConsumedBatch, Origin, Partition, PublicBatch
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, Producer
from saker.engine.kafka.librdkafka_handle import plugin_settings, why_not_native
from saker.engine.kafka.transport import Acknowledgement, Indices, Transport
from saker.engine.kernels import Native
from saker.engine.kernels import native as load_native

if TYPE_CHECKING:
    from saker.engine.kernels import _native

_EVENTS_SECONDS = 0.01  # a rebalance waits so long at most

#: (most records, milliseconds to wait) -> batch, and (code, text) of the errors among the records
Poll = Callable[[int, int], "_native.Polled"]


class DeliveredCount:
    """Kafka acknowledges the results of a partition in their order, so counting them is enough."""

    in_order = True

    def __init__(self, producer: _native.ResultProducer, mark: bytes) -> None:
        self._producer, self._mark = producer, mark

    def done(self) -> bool:
        check(self._producer)
        return self._producer.delivered(self._mark)


def check(producer: _native.ResultProducer) -> None:
    """Raises KafkaException when a result of this producer was not delivered; nothing after it may be committed."""
    if code := producer.failure():
        raise KafkaException(KafkaError(code))


class NativeTransport(Transport):
    backend = "native"

    def __init__(self, native: Native, consumer: Consumer, producers: Sequence[Producer], output: str) -> None:
        """Raises ValueError where librdkafka does not know a client."""
        super().__init__(consumer, producers, output)
        self.native = native
        self._events_due = 0.0
        self.queue = native.ConsumerQueue(consumer, consumer.handle, Origin)
        self.result_producers = [native.ResultProducer(producer, producer.handle, output) for producer in producers]

    def attach(self, partitions: Iterable[Partition]) -> None:
        partitions = list(partitions)
        super().attach(partitions)
        for topic, partition in partitions:
            self.queue.attach(topic, partition)

    def poll(self, most: int, wait_seconds: float, by: Poll | None = None) -> tuple[ConsumedBatch, list[KafkaError]]:
        """by: polls the queue instead, and may answer records itself."""
        if (now := time.monotonic()) >= self._events_due:
            self._events_due = now + _EVENTS_SECONDS
            event = self._consumer.poll(0)  # serves rebalances and commits
            if event is not None:
                error = event.error()
                # A record may have got here before its partition was attached.
                return PublicBatch([] if error else [event]), [error] if error else []
        batch, errors = (by or self.queue.poll)(most, round(min(wait_seconds, _EVENTS_SECONDS) * 1000))
        return batch, [KafkaError(code, text) for code, text in errors]

    def send(self, batch: ConsumedBatch, indices: Indices, results: Sequence[bytes]) -> Acknowledgement:
        if not isinstance(batch, self.native.MessageBatch) or not isinstance(results, self.native.Results):
            return super().send(batch, indices, results)
        producer, place = self.result_producers[self.place], 0
        while True:
            place, code, mark = producer.send(batch, indices, results, place)
            if code:
                raise KafkaException(KafkaError(code))
            if mark is not None:
                return DeliveredCount(producer, mark)
            self.producer.poll(0.01)  # the queue is full

    def close(self) -> None:
        self.queue.close()
        super().close()


class TransportChoice:
    """The transport that was asked for, or the public one where the native one cannot be had."""

    def __init__(self, asked: str, kernels: str) -> None:
        """asked: auto, native or public. Raises `ServingError` for native where that cannot be."""
        self._must = asked == "native"
        self._native: Native | None = None
        #: What its clients need in their configuration.
        self.client_settings: dict[str, str] = {}
        #: Why it is the public one; empty where that was asked for, and for the native one.
        self.reason = ""
        native, reason = (None, "") if asked == "public" else load_native(kernels)
        if native is None or (reason := why_not_native()):
            self._use_public(reason)
            return
        try:
            self._native, self.client_settings = native, plugin_settings(native)
        except OSError as error:
            self._use_public(f"librdkafka is not as expected: {error}")

    def open(self, consumer: Consumer, producers: Sequence[Producer], output: str) -> Transport:
        """consumer, producers: made with `client_settings`."""
        if self._native is not None:
            try:
                return NativeTransport(self._native, consumer, producers, output)
            except ValueError as error:
                self._use_public(f"confluent_kafka's clients are not as expected: {error}")
        return Transport(consumer, producers, output)

    def _use_public(self, reason: str) -> None:
        if self._must:
            raise ServingError(f"--transport native: {reason}; use --transport auto")
        self._native, self.reason, self.client_settings = None, reason, {}
