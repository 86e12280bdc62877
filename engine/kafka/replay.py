"""An open-loop load: records are sent when they are due, whatever became of the ones before."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import queue
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from saker.engine.errors import ModelRefused, SakerError
from saker.engine.kafka import admin, clients
from saker.engine.kafka.clients import KafkaError, Message
from saker.engine.paths import Path, find, parse_path

_TICK_SECONDS = 0.002
_REPORT_SECONDS = 0.1
_FLUSH_SECONDS = 60.0
_CHUNK, _AHEAD_CHUNKS = 500, 16


#: Key and value of a record.
Pair = tuple[bytes | None, bytes | None]


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


def keyed(records: Iterable[bytes], key: str) -> Iterator[Pair]:
    """Records with the field `key` of each, a name or a path, as the Kafka key.

    Raises `LoadError` when the first one lacks it.
    """
    path: Path = (key,)
    with contextlib.suppress(ModelRefused):  # then it can only be a name
        path = parse_path(key)
    for number, record in enumerate(records):
        found = _key(record, key, path)
        if found is None and number == 0:
            with contextlib.suppress(ValueError):
                names = ", ".join(list(orjson.loads(record))[:5])
                raise LoadError(f"the first record has no field {key!r} (from --key); it has {names}, ...")
        yield found, record


def _key(record: bytes, field: str, path: Path) -> bytes | None:
    """The text of the field; None if it is missing, or if the record is not a JSON object, which is sent anyway."""
    try:
        parsed = orjson.loads(record)
        where = (field,) if field in parsed else path
        value = find(parsed, where)
        if isinstance(value, float):  # as it is written: two keys may be one float
            value = find(json.loads(record, parse_float=str, parse_int=str), where)
            # card1 is 1234 in one table and 1234.0 in another: the same card, so the same key.
            value = re.sub(r"\.0+\Z", "", value)
    except (ValueError, TypeError, RecursionError):
        return None
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def ahead(make: Callable[..., Iterator[Pair]], *arguments: Any) -> Iterator[Pair]:
    """The items of `make(*arguments)`, generated in a separate process a few thousand records ahead.

    Generating 5,000 transactions takes a second, in which nothing would be sent.
    """
    spawn = multiprocessing.get_context("spawn")
    chunks: Any = spawn.Queue(_AHEAD_CHUNKS)
    maker = spawn.Process(target=_make, args=(chunks, make, arguments), daemon=True)
    maker.start()
    try:
        while isinstance(chunk := _next(chunks, maker), list):
            yield from chunk
        if chunk is not None:
            raise chunk
    finally:
        maker.terminate()
        maker.join()


def _next(chunks: Any, maker: Any) -> list[Pair] | SakerError | None:
    """The next chunk; raises `LoadError` when its maker died without a word, for which one would wait for ever."""
    while True:
        try:
            chunk: list[Pair] | SakerError | None = chunks.get(timeout=1)
        except queue.Empty:
            if not maker.is_alive():
                raise LoadError(f"generating the records failed with exit code {maker.exitcode}; see the error above") from None
        else:
            return chunk


def _make(chunks: Any, make: Callable[..., Iterator[Pair]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this process
    try:
        made = make(*arguments)
        while chunk := list(itertools.islice(made, _CHUNK)):
            chunks.put(chunk)
        chunks.put(None)
    except SakerError as error:
        chunks.put(error)


def replay(
    records: Iterable[Pair],
    *,
    bootstrap_servers: str,
    topic: str,
    rate: float | None = None,
    report: Callable[[Sent], None] = lambda _: None,
) -> Sent:
    """Send (key, value) pairs at `rate` records per second, or as fast as Kafka accepts them; wait for every answer.

    A record's timestamp is the moment at which it was due. Records leave in ticks, those that are due together: a
    wake-up of the client for each cost three quarters of a core at 2,000 records/s, and late records with it.
    """
    partitions = admin.partition_counts(bootstrap_servers, [topic])[topic]
    producer = clients.producer(bootstrap_servers)
    told = Sent()

    def acknowledge(error: KafkaError | None, _: Message) -> None:
        if error is None:
            told.acknowledged += 1
        else:
            told.errors.append(error.str())

    records = iter(records)
    first = list(itertools.islice(records, 1))  # the clock starts when there is something to send
    started, started_ms = time.perf_counter(), time.time_ns() // 1_000_000
    reported = tick = 0.0
    for number, (key, value) in enumerate(itertools.chain(first, records)):
        now = time.perf_counter() - started
        due = number / rate if rate else now
        if due > now:
            tick = max(due, tick + _TICK_SECONDS)
            producer.poll(0)
            time.sleep(max(0.0, tick - (time.perf_counter() - started)))
            now = time.perf_counter() - started
        told.latest_seconds = max(told.latest_seconds, now - due)
        partition = number % partitions if key is None else -1
        timestamp = started_ms + int(due * 1000)
        while True:
            try:
                producer.produce(topic, value, key, partition, acknowledge, timestamp=timestamp)
                break
            except BufferError:
                producer.poll(0.01)
        told.sent += 1
        if now - reported >= _REPORT_SECONDS:
            producer.poll(0)
            reported = told.seconds = now
            report(told)
    producer.flush(_FLUSH_SECONDS)
    told.seconds = time.perf_counter() - started
    report(told)
    return told
