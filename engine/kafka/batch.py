"""A batch of consumed records, and where each record came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from saker.engine.kafka.clients import Message
from saker.engine.kernels import Values

Partition = tuple[str, int]
Headers = list[tuple[str, bytes | None]]


class Origin(NamedTuple):
    """Where a record came from, and what its result takes over. `timestamp_ms` since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: Headers | None


class ConsumedBatch(Values, Protocol):
    """A batch of records: their values, and where they came from."""

    def origin(self, index: int, /) -> Origin: ...

    def positions(self) -> dict[Partition, int]:
        """The offset after the last record of each partition."""

    def timestamps(self, into: NDArray[np.int64], /) -> None:
        """Milliseconds since 1970, into an array (n,)."""


class PublicBatch:
    """`ConsumedBatch` of confluent_kafka's messages."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._values: list[bytes | None] = [message.value() for message in messages]

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: int, /) -> bytes | None:
        return self._values[at]

    def origin(self, index: int, /) -> Origin:
        m = self.messages[index]
        return Origin(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.headers())

    def positions(self) -> dict[Partition, int]:
        return {(message.topic(), message.partition()): message.offset() + 1 for message in self.messages}

    def timestamps(self, into: NDArray[np.int64], /) -> None:
        into[:] = [message.timestamp()[1] for message in self.messages]


class SingleRecord:
    """One record of a batch as a batch of its own."""

    def __init__(self, of: ConsumedBatch, index: int) -> None:
        self._of, self._index = of, index

    def __len__(self) -> int:
        return 1

    def __getitem__(self, at: int, /) -> bytes | None:
        if at:
            raise IndexError(at)
        return self._of[self._index]

    def origin(self, index: int, /) -> Origin:  # noqa: ARG002 - it is 0
        return self._of.origin(self._index)

    def positions(self) -> dict[Partition, int]:
        origin = self._of.origin(self._index)
        return {(origin.topic, origin.partition): origin.offset + 1}

    def timestamps(self, into: NDArray[np.int64], /) -> None:
        into[0] = self._of.origin(self._index).timestamp_ms


def single_records(batch: ConsumedBatch) -> Iterator[SingleRecord]:
    """The records of a batch, each as a batch of its own."""
    return (SingleRecord(batch, index) for index in range(len(batch)))
