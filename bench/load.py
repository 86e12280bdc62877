"""An open-loop load: records are sent when they are due, whatever became of the ones before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from engine import kafka
from engine.errors import SakerError
from engine.kafka import KafkaError, Message

#: Header with the moment (ns since 1970) at which a record was due; the engine hands headers on to the result.
DUE_HEADER = "saker.due"
_TICK_SECONDS = 0.005
_FLUSH_SECONDS = 60.0


class LoadError(SakerError):
    """Records cannot be sent as asked for."""


@dataclass
class Sent:
    """How many records were handed to Kafka and acknowledged, and how late the latest was against its schedule."""

    sent: int = 0
    acknowledged: int = 0
    seconds: float = 0.0
    latest_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


def keyed(records: Iterable[bytes], key: str) -> Iterator[tuple[bytes | None, bytes]]:
    """Records with the field `key` of each as the Kafka key; raises `LoadError` when the first one lacks it."""
    for number, record in enumerate(records):
        value = orjson.loads(record).get(key)
        if value is None and number == 0:
            raise LoadError(f"the first record has no field {key!r} (from --key): {record[:80].decode()}...")
        # card1 is 1234 in one table and 1234.0 in another: the same card, so the same key.
        text = f"{value:g}" if isinstance(value, float) else str(value)
        yield (None if value is None else text.encode()), record


def replay(
    records: Iterable[tuple[bytes | None, bytes | None]],
    *,
    bootstrap_servers: str,
    topic: str,
    rate: float | None = None,
    report: Callable[[Sent], None] = lambda _: None,
) -> Sent:
    """Send (key, value) pairs at `rate` records a second, or as fast as Kafka takes them; wait for every answer."""
    partitions = kafka.partition_counts(bootstrap_servers, [topic])[topic]
    producer = kafka.producer(bootstrap_servers)
    told = Sent()

    def acknowledge(error: KafkaError | None, _: Message) -> None:
        if error is None:
            told.acknowledged += 1
        else:
            told.errors.append(error.str())

    started, started_ns = time.perf_counter(), time.time_ns()
    for number, (key, value) in enumerate(records):
        due = number / rate if rate else time.perf_counter() - started
        while (ahead := due - (time.perf_counter() - started)) > 0:
            producer.poll(min(ahead, _TICK_SECONDS))
        told.latest_seconds = max(told.latest_seconds, -ahead)
        headers: Any = [(DUE_HEADER, str(started_ns + int(due * 1e9)).encode())]
        _produce(producer, topic, value, key, number % partitions if key is None else -1, headers, acknowledge)
        told.sent += 1
        if number % 500 == 499:  # noqa: PLR2004 - now and then
            producer.poll(0)
            told.seconds = time.perf_counter() - started
            report(told)
    producer.flush(_FLUSH_SECONDS)
    told.seconds = time.perf_counter() - started
    report(told)
    return told


def _produce(
    producer: Any,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    partition: int,
    headers: Any,
    acknowledge: Callable[[KafkaError | None, Message], None],
) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition, acknowledge, headers=headers)
        except BufferError:
            producer.poll(0.01)
        else:
            return
