r"""The two hot calls: take a batch of records, and send a batch of results.

    consumer --take--> Taken: values for the pipeline, and of each record where it stood, its key and headers
                  |                        |
                  |  producer <--send-- results, each with the key, partition, timestamp and headers of its record
                  |
                  \--> a few records, and a model that is native throughout: answered at once (native/express.c), see `tell`

Natively on the handles that the clients of confluent_kafka hold (`NativeTransport`), where they look as they should, or by
their public calls. Everything else (configuration, group, commits, callbacks) is theirs. One worker owns a transport.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.decode import Values
from engine.kafka import Consumer, KafkaError, KafkaException, Message, Producer
from engine.kernels import native as load_native
from engine.librdkafka import handle, library
from engine.metrics import ANSWERED, Answered

if TYPE_CHECKING:
    from engine.pipeline import NativeModel

Partition = tuple[str, int]
Delivered = Callable[[KafkaError | None, Message], None]
Indices = NDArray[np.int32]

_IDLE_SECONDS = 1.0  # between two looks at the producers that do not send: each tells its statistics ten times a second
_EVENTS_SECONDS = 0.01  # a rebalance waits so long at most


class Origin(NamedTuple):
    """Where a record stood, and what its result takes over. `timestamp_ms` since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]] | None


class Taken(Values, Protocol):
    """A batch of records: their values, and where they came from."""

    def origin(self, index: int) -> tuple[Any, ...]:
        """The fields of `Origin`."""

    def positions(self) -> dict[Partition, int]:
        """The offset behind the last record of each partition."""

    def timestamps(self, into: NDArray[np.int64]) -> None:
        """Milliseconds since 1970, into an array (n,)."""


class PublicTaken:
    """`Taken` of confluent_kafka's messages."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._values: list[bytes | None] = [message.value() for message in messages]

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: int, /) -> bytes | None:
        return self._values[at]

    def origin(self, index: int) -> tuple[Any, ...]:
        m = self.messages[index]
        return m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.headers()

    def positions(self) -> dict[Partition, int]:
        return {(message.topic(), message.partition()): message.offset() + 1 for message in self.messages}

    def timestamps(self, into: NDArray[np.int64]) -> None:
        into[:] = [message.timestamp()[1] for message in self.messages]


class Single:
    """One record of a batch as a batch of its own."""

    def __init__(self, of: Taken, index: int) -> None:
        self._of, self._index = of, index

    def __len__(self) -> int:
        return 1

    def __getitem__(self, at: int, /) -> bytes | None:
        if at:
            raise IndexError(at)
        return self._of[self._index]

    def origin(self, index: int) -> tuple[Any, ...]:  # noqa: ARG002 - it is 0
        return self._of.origin(self._index)

    def positions(self) -> dict[Partition, int]:
        topic, partition, offset, *_ = self._of.origin(self._index)
        return {(topic, partition): offset + 1}

    def timestamps(self, into: NDArray[np.int64]) -> None:
        into[0] = self._of.origin(self._index)[3]


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
