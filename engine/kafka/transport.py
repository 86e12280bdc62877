r"""The two hot calls: take a batch of records, and send a batch of results.

    consumer --take--> Taken: values for the pipeline, and of each record where it stood, its key and headers
                  |                        |
                  |  producer <--send-- results, each with the key, partition, timestamp and headers of its record
                  |
                  \--> a few records, and a model that is native throughout: answered at once (native/fast_path.c), see `tell`

Natively on the handles that the clients of confluent_kafka hold (`NativeTransport`), where they look as they should, or by
their public calls. Everything else (configuration, group, commits, callbacks) is theirs. One worker owns a transport.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kafka.batch import Origin, Partition, PublicTaken, Taken
from saker.engine.kafka.clients import Consumer, KafkaError, Message, Producer
from saker.engine.metrics.counts import Answered

if TYPE_CHECKING:
    from saker.engine.model.active_model import NativeModel

Delivered = Callable[[KafkaError | None, Message], None]
Indices = NDArray[np.int32]

_IDLE_SECONDS = 1.0  # between two looks at the producers that do not send: each tells its statistics ten times a second


def nothing_more() -> bool:
    return True


class Transport:
    """By the public calls of the clients."""

    backend = "public"

    def __init__(self, consumer: Consumer, producers: Sequence[Producer], output: str, assigned: set[Partition]) -> None:
        """producers: of which one sends at a time, at first the first one. output: topic of the results. assigned: the
        consumer's partitions, which their owner keeps up to date.
        """
        self._consumer, self._producers, self._output, self._assigned = consumer, producers, output, assigned
        self.places, self.place = len(producers), 0
        self._idle_due = 0.0

    @property
    def producer(self) -> Producer:
        """The one that sends."""
        return self._producers[self.place]

    @property
    def partitions(self) -> int:
        """How many the consumer has."""
        return len(self._assigned)

    def send_by(self, place: int) -> None:
        """Change the producer. All that the one before was handed must have been answered, or records change their order."""
        self.place = place

    def poll(self, seconds: float) -> None:
        """Take what the producers have to tell: acknowledgements, up to `seconds` for one, and of the others statistics."""
        self.producer.poll(seconds)
        if (now := time.monotonic()) >= self._idle_due:
            self._idle_due = now + _IDLE_SECONDS
            for producer in self._producers:
                producer.poll(0)

    def follow(self, partitions: Iterable[Partition]) -> None:
        """Take the records of partitions that are being assigned."""

    @property
    def in_flight(self) -> int:
        """How many records `take` answered that are not acknowledged."""
        return 0

    def answer_by(self, model: NativeModel | None, journal: Any, late_ms: float | None = None) -> None:
        """What `take` may answer a few records with. journal: the cells of one. late_ms: those that are older it hands out."""

    def tell(self) -> tuple[dict[Partition, int], Answered] | None:
        """What `take` answered and Kafka acknowledged since the last time: the offsets behind it, and what is to be counted."""
        return None

    def forget(self, partitions: Iterable[Partition]) -> None:
        """They are another consumer's: the offsets behind what was answered are not told any more."""

    def take(self, most: int, wait_seconds: float, few: int = 0) -> tuple[Taken, list[KafkaError]]:  # noqa: ARG002 - natively
        """What is there now: one record waited for, and those behind it; and the errors that stood among them.

        few: as long as no more than so many are unanswered, it may answer them itself and go on waiting.
        """
        first = self._consumer.poll(wait_seconds)
        if first is None:
            return PublicTaken([]), []
        messages = [first, *self._consumer.consume(most - 1, 0)]
        errors = [error for message in messages if (error := message.error()) is not None]
        if errors:
            messages = [message for message in messages if message.error() is None]
        if messages and (messages[0].topic(), messages[0].partition()) not in self._assigned:
            del messages[0]  # a rebalance between the two calls took its partition away: the new owner reads it again
        return PublicTaken(messages), errors

    def send(
        self, taken: Taken, indices: Indices, results: Sequence[bytes], delivered: Delivered
    ) -> tuple[int, Callable[[], bool]]:
        """Send `results[i]` as the answer to the record at `indices[i]`.

        Returns how often `delivered` will be called, and what tells whether those are delivered that it is not called for.
        """
        for place, index in enumerate(indices.tolist()):
            self.send_one(self._output, results[place], Origin(*taken.origin(index)), delivered)
        return len(indices), nothing_more

    def failure(self) -> KafkaError | None:
        """Why a result was not delivered that `delivered` was not called for; nothing behind it may be committed."""
        return None

    def send_one(self, topic: str, value: bytes | None, origin: Origin, delivered: Delivered, headers: Any = None) -> None:
        """headers: instead of the record's."""
        while True:
            try:
                self.producer.produce(
                    topic,
                    value,
                    origin.key,
                    origin.partition,
                    delivered,
                    timestamp=max(origin.timestamp_ms, 0),
                    headers=origin.headers if headers is None else headers,
                )
            except BufferError:
                self.producer.poll(0.01)
            else:
                return

    def close(self) -> None:
        """Before the consumer is closed."""
