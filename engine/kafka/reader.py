"""Read a topic back, as its consumers see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from saker.engine.errors import SakerError, ServingError
from saker.engine.kafka import admin, clients
from saker.engine.kafka.batch import headers_of
from saker.engine.kafka.clients import KafkaError, TopicPartition

_BATCH = 1000


class Record(NamedTuple):
    """A record of a topic, and when it was read (seconds since 1970). Plain data: it crosses processes."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    read_at: float

    def header(self, name: str) -> str:
        """The text of the last header of this name; raises `KeyError` if there is none."""
        return (dict(self.headers)[name] or b"").decode()


class RecordsRead(Sequence[bytes | None]):
    """The values of records, for a decoder: it knows their places and headers."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> RecordsRead: ...
    def __getitem__(self, at: int | slice) -> bytes | RecordsRead | None:
        return RecordsRead(self.records[at]) if isinstance(at, slice) else self.records[at].value

    def places(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64], /) -> None:
        """As of `ConsumedBatch`."""
        partitions[:] = [record.partition for record in self.records]
        offsets[:] = [record.offset for record in self.records]
        timestamps[:] = [record.timestamp_ms for record in self.records]

    def with_header(self, name: str, /) -> list[tuple[int, bytes | None]]:
        """As of `ConsumedBatch`."""
        headers = ((at, dict(record.headers)) for at, record in enumerate(self.records))
        return [(at, one[name]) for at, one in headers if name in one]

    @property
    def starts(self) -> dict[int, int]:
        """Of each partition the offset of its first record."""
        found: dict[int, int] = {}
        for record in self.records:
            found[record.partition] = min(record.offset, found.get(record.partition, record.offset))
        return found


class NothingCame(SakerError):
    """Records that should be in a topic are not."""


def read_topic(
    bootstrap_servers: str,
    topic: str,
    count: int,
    *,
    distinct: Callable[[Record], Hashable] | None = None,
    idle_seconds: float = 60.0,
) -> list[Record]:
    """All records of `topic` from its beginning: waits until there are `count`, then reads what more there is.

    With `distinct`, waits until it has given `count` different values. Raises `NothingCame` when no record came for
    `idle_seconds`.
    """
    partitions = admin.partition_counts(bootstrap_servers, [topic])[topic]
    consumer = _consumer(bootstrap_servers, f"read-{topic}")
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    records: list[Record] = []
    at_end: set[int] = set()
    seen: set[Hashable] = set()
    last = time.monotonic()
    while (len(records) if distinct is None else len(seen)) < count:
        batch = _take(consumer, at_end)
        records += batch
        if distinct is not None:
            seen.update(map(distinct, batch))
        if batch:
            last = time.monotonic()
        elif time.monotonic() - last > idle_seconds:
            raise NothingCame(f"{topic}: {len(records)} records, expected {count}; no more for {idle_seconds:.0f} s")
    while len(at_end) < partitions:
        records += _take(consumer, at_end)
    consumer.close()
    return records


def read_newest(bootstrap_servers: str, source: str, output: str, last: int) -> tuple[list[Record], list[Record]]:
    """The last `last` results in `output`, and the records of `source` from the time of the oldest of them on.

    A result keeps partition and timestamp of its record. Raises `ServingError` when a topic is missing or they do not match.
    """
    counts = admin.partition_counts(bootstrap_servers, [source, output])
    if counts[source] != counts[output]:
        raise ServingError(
            f"{source} has {counts[source]} partitions and {output} {counts[output]}: {output} cannot hold its scores"
        )
    consumer = _consumer(bootstrap_servers, f"verify-{output}")
    results = _read_last(consumer, output, counts[output], last)
    oldest: dict[int, int] = {}
    for result in results:
        oldest[result.partition] = min(oldest.get(result.partition, result.timestamp_ms), result.timestamp_ms)
    times = [TopicPartition(source, number, timestamp) for number, timestamp in oldest.items()]
    starts = {p.partition: p.offset for p in consumer.offsets_for_times(times) if p.offset >= 0} if times else {}
    records = _read_from(consumer, source, starts)
    consumer.close()
    return records, results


def read_last(bootstrap_servers: str, topic: str, last: int) -> list[Record]:
    """The last `last` records of `topic`, of each partition the same share; raises `ServingError` when it is missing."""
    partitions = admin.partition_counts(bootstrap_servers, [topic])[topic]
    consumer = _consumer(bootstrap_servers, f"read-{topic}")
    records = _read_last(consumer, topic, partitions, last)
    consumer.close()
    return records


def first_timestamps(bootstrap_servers: str, starts: Sequence[TopicPartition], seconds: float) -> dict[int, int]:
    """Of each partition the timestamp (ms) of its first record from an offset on; none where there is no record in time."""
    if not starts:
        return {}
    consumer = _consumer(bootstrap_servers, "first-timestamps")
    consumer.assign(list(starts))
    found: dict[int, int] = {}
    at_end: set[int] = set()
    deadline = time.monotonic() + seconds
    while len(found.keys() | at_end) < len(starts) and time.monotonic() < deadline:
        for record in _take(consumer, at_end):
            found.setdefault(record.partition, record.timestamp_ms)
    consumer.close()
    return found


def read_one(bootstrap_servers: str, topic: str, partition: int, offset: int) -> Record:
    """The record at an offset; raises `ServingError` when the topic is missing, `NothingCame` when it has no such record."""
    partitions = admin.partition_counts(bootstrap_servers, [topic])[topic]
    if partition >= partitions:
        raise NothingCame(f"{topic} has {partitions} partitions, no partition {partition}")
    consumer = _consumer(bootstrap_servers, f"read-{topic}")
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition))
    records: list[Record] = []
    if low <= offset < high:
        consumer.assign([TopicPartition(topic, partition, offset)])
        at_end: set[int] = set()
        while not (records or at_end):
            records = _take(consumer, at_end)
    consumer.close()
    if not (records and records[0].offset == offset):
        raise NothingCame(f"{topic}, partition {partition}: no record at offset {offset}; there are {low} to {high - 1}")
    return records[0]


def _read_last(consumer: clients.Consumer, topic: str, partitions: int, last: int) -> list[Record]:
    share = -(-last // partitions)
    ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number)) for number in range(partitions)}
    return _read_from(consumer, topic, {number: max(low, high - share) for number, (low, high) in ends.items()})


def _consumer(bootstrap_servers: str, group: str) -> clients.Consumer:
    """A consumer that reports ends: the offsets after the last record of a transaction are markers, without a record."""
    return clients.consumer(bootstrap_servers, **{"group.id": group, "enable.partition.eof": True})


def _read_from(consumer: clients.Consumer, topic: str, starts: dict[int, int]) -> list[Record]:
    """The records of the partitions from these offsets to the current ends."""
    ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in starts}
    consumer.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
    records: list[Record] = []
    reached = dict(starts)
    at_end: set[int] = set()
    while any(number not in at_end and reached[number] < ends[number] for number in starts):
        batch = _take(consumer, at_end)
        reached.update({record.partition: record.offset + 1 for record in batch})
        records += batch
    return [record for record in records if record.offset < ends[record.partition]]


def _take(consumer: clients.Consumer, at_end: set[int]) -> list[Record]:
    """The available messages. at_end: partitions without further ones, updated here."""
    first = consumer.poll(0.1)
    if first is None:
        return []
    now, records = time.time(), []
    for m in (first, *consumer.consume(_BATCH, 0)):
        error = m.error()
        if error is None:
            at_end.discard(m.partition())
            records.append(Record(m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), headers_of(m) or [], now))
        elif error.code() == KafkaError._PARTITION_EOF:
            at_end.add(m.partition())
    return records
