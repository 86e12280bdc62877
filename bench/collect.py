"""Read a topic back, as its consumers see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from engine import kafka
from engine.errors import SakerError
from engine.kafka import Message, TopicPartition

_BATCH = 1000


class Arrived(NamedTuple):
    """A record and when it was read (ns since 1970)."""

    message: Message
    at_ns: int


class NothingCame(SakerError):
    """Records that should be in a topic are not."""


def read_topic(
    bootstrap_servers: str,
    topic: str,
    count: int,
    *,
    distinct: Callable[[Message], Hashable] | None = None,
    idle_seconds: float = 60.0,
) -> list[Arrived]:
    """All records of `topic` from its beginning: waits until there are `count`, then reads what more there is.

    With `distinct`, waits until it has given `count` different values. Raises `NothingCame` when no record came for
    `idle_seconds`.
    """
    partitions = kafka.partition_counts(bootstrap_servers, [topic])[topic]
    consumer = kafka.consumer(bootstrap_servers, **{"group.id": f"read-{topic}"})
    everything = [TopicPartition(topic, number, 0) for number in range(partitions)]
    consumer.assign(everything)
    arrived: list[Arrived] = []
    seen: set[Hashable] = set()
    last = time.monotonic()
    while (len(arrived) if distinct is None else len(seen)) < count:
        batch = _take(consumer)
        arrived += batch
        if distinct is not None:
            seen.update(distinct(message) for message, _ in batch)
        if batch:
            last = time.monotonic()
        elif time.monotonic() - last > idle_seconds:
            raise NothingCame(f"{topic}: {len(arrived)} records, expected {count}; no more for {idle_seconds:.0f} s")
    ends = {p.partition: consumer.get_watermark_offsets(p)[1] for p in everything}
    while any(max(p.offset, 0) < ends[p.partition] for p in consumer.position(everything)):
        arrived += _take(consumer)
    consumer.close()
    return arrived


def _take(consumer: kafka.Consumer) -> list[Arrived]:
    first = consumer.poll(0.1)
    if first is None:
        return []
    messages = [first, *consumer.consume(_BATCH, 0)]
    now = time.time_ns()
    return [Arrived(message, now) for message in messages if message.error() is None]
