"""The two hot calls by the public interface of confluent_kafka: poll a batch of records, and send a batch of results.

    consumer --poll--> ConsumedBatch: values for the pipeline, and of each record its origin, key and headers
                              |
    producer <--send-- results, each with the key, partition, timestamp and headers of its record
         \\--> Acknowledgement: whether Kafka has all of them

`NativeTransport` does the same on librdkafka itself. One worker owns a transport; it alone changes `partitions` and `place`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saker.engine.kafka.batch import ConsumedBatch, Origin, Partition, PublicBatch
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, Message, Producer

Indices = NDArray[np.int32]

_IDLE_SECONDS = 1.0  # between polls of the idle producers, each of which reports statistics ten times per second


class Acknowledgement(Protocol):
    """Of results that were sent together."""

    #: Whether all that was sent before to the same partitions is acknowledged, too, once these are.
    in_order: bool

    def done(self) -> bool:
        """Whether Kafka has all of them; raises KafkaException when it refused one."""


class DeliveryReports:
    """What confluent_kafka reports of messages that were produced with this as `on_delivery`."""

    in_order = False

    def __init__(self) -> None:
        self.expected = 0
        self._error: KafkaError | None = None

    def __call__(self, error: KafkaError | None, _: Message) -> None:
        self.expected -= 1
        self._error = self._error or error

    def done(self) -> bool:
        if self._error is not None:
            raise KafkaException(self._error)
        return not self.expected


class Transport:
    """By the public calls of the clients."""

    backend = "public"

    def __init__(self, consumer: Consumer, producers: Sequence[Producer], output: str) -> None:
        """producers: one of them sends at a time, at first the first one. output: topic of the results."""
        self._consumer, self._producers, self._output = consumer, producers, output
        self.places, self.place = len(producers), 0
        #: The consumer's, as far as its owner has attached and dropped them.
        self.partitions: frozenset[Partition] = frozenset()
        self._idle_due = 0.0

    @property
    def producer(self) -> Producer:
        """The producer that sends."""
        return self._producers[self.place]

    def use_producer(self, place: int) -> None:
        """Change the producer. All that the previous one sent must be acknowledged, or records change their order."""
        self.place = place

    def attach(self, partitions: Iterable[Partition]) -> None:
        """Poll the records of partitions that are being assigned."""
        self.partitions |= frozenset(partitions)

    def drop_partitions(self, partitions: Iterable[Partition]) -> None:
        """Another consumer has them."""
        self.partitions -= frozenset(partitions)

    def refresh(self, topics: Iterable[str], seconds: float) -> None:
        """Have the producers learn of partitions that were added; raises KafkaException when no broker answers in time."""
        for topic in topics:
            for producer in self._producers:
                producer.list_topics(topic, seconds)

    def poll(self, most: int, wait_seconds: float) -> tuple[ConsumedBatch, list[KafkaError]]:
        """What is there now: one record waited for, and those after it; and the errors among them."""
        first = self._consumer.poll(wait_seconds)
        if first is None:
            return PublicBatch([]), []
        messages = [first, *self._consumer.consume(most - 1, 0)]
        errors = [error for message in messages if (error := message.error()) is not None]
        if errors:
            messages = [message for message in messages if message.error() is None]
        if messages and (messages[0].topic(), messages[0].partition()) not in self.partitions:
            del messages[0]  # a rebalance between the two calls took its partition away: the new owner reads it again
        return PublicBatch(messages), errors

    def poll_producers(self, seconds: float) -> None:
        """Serve acknowledgements, waiting up to `seconds` for one; now and then the statistics of idle producers."""
        self.producer.poll(seconds)
        if (now := time.monotonic()) >= self._idle_due:
            self._idle_due = now + _IDLE_SECONDS
            for producer in self._producers:
                producer.poll(0)

    def send(self, batch: ConsumedBatch, indices: Indices, results: Sequence[bytes]) -> Acknowledgement:
        """Send `results[i]` as the answer to the record at `indices[i]`. Raises KafkaException when Kafka refuses one."""
        reports = DeliveryReports()
        for place, index in enumerate(indices.tolist()):
            self.send_one(self._output, results[place], batch.origin(index), reports)
        return reports

    def send_one(self, topic: str, value: bytes | None, origin: Origin, reports: DeliveryReports) -> None:
        """With key, partition, timestamp (below 0: now) and headers of `origin`. Raises as `send`."""
        while True:
            try:
                self.producer.produce(
                    topic,
                    value,
                    origin.key,
                    origin.partition,
                    reports,
                    timestamp=max(origin.timestamp_ms, 0),
                    headers=origin.headers,
                )
            except BufferError:
                self.producer.poll(0.01)
            else:
                reports.expected += 1
                return

    def close(self) -> None:
        self._consumer.close()
