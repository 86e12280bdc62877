"""A batch of consumed records, and where each record came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import methodcaller
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from saker.engine.kafka.clients import Message
from saker.engine.kernels import Values

Partition = tuple[str, int]
Headers = list[tuple[str, bytes | None]]
#: Of message format 2: the maximum overhead of a header.
HEADER_BYTES = 10


class Origin(NamedTuple):
    """Where a record came from, and what its result takes over. `timestamp_ms` since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: Headers | None


# Where a name is not UTF-8 confluent_kafka (2.16) returns a list with an exception set. A call from the interpreter may not
# notice, and the exception comes up anywhere; a call by C code is checked.
_headers = methodcaller("headers")


def headers_of(message: Message) -> Headers | None:
    """None also where a name is not UTF-8: confluent_kafka hands out none of them then.

    Once for each message: the second time confluent_kafka returns a list with holes, which ends the process that reads it.
    """
    try:
        headers: Headers | None = _headers(message)
    except (UnicodeDecodeError, SystemError):
        return None
    return headers


def size_of(headers: Headers | None) -> int:
    """Bytes that headers take, at most."""
    return sum(len(name.encode()) + len(value or b"") + HEADER_BYTES for name, value in headers or ())


def is_beyond(
    origin: Origin,
    length: int,
    most_bytes: int,
    earliest_ms: int,
    latest_ms: int,
    needs_key: bool,
) -> bool:
    """`ConsumedBatch.beyond` of one record with a value of `length` bytes; the reference of native/kafka/message_batch.c."""
    if origin.timestamp_ms >= 0 and not earliest_ms <= origin.timestamp_ms <= latest_ms:
        return True
    return length + len(origin.key or b"") + size_of(origin.headers) > most_bytes or (needs_key and origin.key is None)


class ConsumedBatch(Values, Protocol):
    """A batch of records: their values, and where they came from."""

    def origin(self, index: int, /) -> Origin: ...

    def positions(self) -> dict[Partition, int]:
        """The offset after the last record of each partition."""

    def timestamps(self, into: NDArray[np.int64], /) -> None:
        """Milliseconds since 1970, into an array (n,)."""

    def places(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64], /) -> None:
        """Of each record, into arrays (n,); timestamps in milliseconds since 1970."""

    def with_header(self, name: str, /) -> Sequence[tuple[int, bytes | None]]:
        """(index, value) of the records that have a header of this name, the last one of several."""

    def beyond(self, most_bytes: int, earliest_ms: int, latest_ms: int, needs_key: bool, /) -> Sequence[int]:
        """Indices of the records with more bytes of key, value and headers, another timestamp, or without a key."""


def with_header(origins: Iterable[Origin], name: str) -> list[tuple[int, bytes | None]]:
    """`ConsumedBatch.with_header`; the reference of native/kafka/message_batch.c."""
    named = ((at, dict(origin.headers or ())) for at, origin in enumerate(origins))
    return [(at, headers[name]) for at, headers in named if name in headers]


class PublicBatch:
    """`ConsumedBatch` of confluent_kafka's messages."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._values: list[bytes | None] = [message.value() for message in messages]
        self._origins: dict[int, Origin] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: int, /) -> bytes | None:
        return self._values[at]

    def origin(self, index: int, /) -> Origin:
        if index not in self._origins:
            m = self.messages[index]
            self._origins[index] = Origin(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), headers_of(m))
        return self._origins[index]

    def positions(self) -> dict[Partition, int]:
        return {(message.topic(), message.partition()): message.offset() + 1 for message in self.messages}

    def timestamps(self, into: NDArray[np.int64], /) -> None:
        into[:] = [message.timestamp()[1] for message in self.messages]

    def places(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64], /) -> None:
        partitions[:] = [message.partition() for message in self.messages]
        offsets[:] = [message.offset() for message in self.messages]
        self.timestamps(timestamps)

    def with_header(self, name: str, /) -> Sequence[tuple[int, bytes | None]]:
        return with_header(map(self.origin, range(len(self))), name)

    def beyond(self, most_bytes: int, earliest_ms: int, latest_ms: int, needs_key: bool, /) -> Sequence[int]:
        return [
            at
            for at in range(len(self))
            if is_beyond(self.origin(at), len(self[at] or b""), most_bytes, earliest_ms, latest_ms, needs_key)
        ]


class SelectedRecords:
    """Some records of a batch, in their order, as their own batch."""

    def __init__(self, of: ConsumedBatch, indices: list[int]) -> None:
        self._of, self._indices = of, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, at: int, /) -> bytes | None:
        return self._of[self._indices[at]]

    def origin(self, index: int, /) -> Origin:
        return self._of.origin(self._indices[index])

    def positions(self) -> dict[Partition, int]:
        origins = map(self.origin, range(len(self)))
        return {(origin.topic, origin.partition): origin.offset + 1 for origin in origins}

    def timestamps(self, into: NDArray[np.int64], /) -> None:
        into[:] = [self.origin(at).timestamp_ms for at in range(len(self))]

    def places(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64], /) -> None:
        origins = [self.origin(at) for at in range(len(self))]
        partitions[:] = [origin.partition for origin in origins]
        offsets[:] = [origin.offset for origin in origins]
        timestamps[:] = [origin.timestamp_ms for origin in origins]

    def with_header(self, name: str, /) -> Sequence[tuple[int, bytes | None]]:
        return with_header(map(self.origin, range(len(self))), name)

    def beyond(self, most_bytes: int, earliest_ms: int, latest_ms: int, needs_key: bool, /) -> Sequence[int]:
        return [
            at
            for at in range(len(self))
            if is_beyond(self.origin(at), len(self[at] or b""), most_bytes, earliest_ms, latest_ms, needs_key)
        ]


def single_records(batch: ConsumedBatch) -> Iterator[SelectedRecords]:
    """The records of a batch, each as its own batch."""
    return (SelectedRecords(batch, [index]) for index in range(len(batch)))
