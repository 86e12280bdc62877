"""Clients as saker sets them up: consumers, producers, admin clients, and librdkafka's log."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import confluent_kafka
from confluent_kafka import OFFSET_STORED, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from saker.engine.errors import ServingError
from saker.engine.kafka.librdkafka_handle import newest_handle
from saker.engine.kafka.security import security

__all__ = ["OFFSET_STORED", "Consumer", "KafkaError", "KafkaException", "Message", "Producer", "TopicPartition"]

_log = logging.getLogger("saker")

# librdkafka logs a broker that is not up yet, and its own clean-up; what matters here arrives as an exception.
QUIET = {"log_level": 2}
REQUEST_SECONDS = 10.0
_USUAL_MESSAGE_BYTES, _MOST_MESSAGE_BYTES = 16 << 20, 1_000_000_000  # the latter is librdkafka's own limit
_LOG_SECONDS = 10.0


class Seldom(logging.Filter):
    """Of lines that differ in their numbers only, pass one per `_LOG_SECONDS`, with the number of those suppressed.

    librdkafka retries a broker that does not answer twenty times per second, in each client, and logs each attempt.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}
        self._dropped: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if "enable.gapless.guarantee is experimental" in record.getMessage():
            return False  # asked for on purpose (delivery/at_least_once.py)
        same, now = re.sub(r"\d+", "", record.getMessage()), time.monotonic()
        if now < self._next.get(same, 0.0):
            self._dropped[same] += 1
            return False
        self._next[same] = now + _LOG_SECONDS
        if more := self._dropped.pop(same, 0):
            record.msg = f"{record.getMessage()} ({more} more like it)"
            record.args = ()
        return True


_librdkafka_log = logging.getLogger("saker.librdkafka")
_librdkafka_log.addFilter(Seldom())


def warn(text: str) -> None:
    """Warn once per `_LOG_SECONDS` of a repeated message."""
    _librdkafka_log.warning(text)


def connection(bootstrap_servers: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap_servers,
        # librdkafka's own limit is 10 s: so long would a broker that is back wait for its clients.
        "reconnect.backoff.max.ms": 1000,
        # The default is 300 s, for which added partitions would have no reader.
        "topic.metadata.refresh.interval.ms": 10_000,
        **security(),
    }


class Consumer(confluent_kafka.Consumer):  # type: ignore[misc]
    """confluent_kafka's, with its handle (librdkafka_handle.py)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.handle = newest_handle()


class Producer(confluent_kafka.Producer):  # type: ignore[misc]
    """confluent_kafka's, with its handle (librdkafka_handle.py)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.handle = newest_handle()


class BrokerUnreachable(ServingError):
    """No broker answers: it may be starting, and it may be another's address."""


def observer(bootstrap_servers: str, group: str, **settings: Any) -> Consumer:
    """A consumer for `groups.Lags`. It never joins the group, and learns where a partition ends."""
    few = {"queued.min.messages": 1, "fetch.message.max.bytes": 65_536, "fetch.wait.max.ms": 10}
    return Consumer(
        {
            **connection(bootstrap_servers),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **few,
            **QUIET,
            **settings,
        }
    )


def admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({**connection(bootstrap_servers), **QUIET})


def consumer(bootstrap_servers: str, **settings: Any) -> Consumer:
    """A consumer tuned for tail latency: librdkafka's defaults wait up to 500 ms for more to come or after an error."""
    return Consumer(
        {
            **connection(bootstrap_servers),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 20,
            # Most of a worker's memory is this queue; the short back-off keeps it full enough (measured).
            "queued.max.messages.kbytes": 8192,
            "fetch.queue.backoff.ms": 5,
            **settings,
        },
        logger=_librdkafka_log,
    )


def room_for(largest: int) -> dict[str, int]:
    """Settings of a producer that takes messages of up to `largest` bytes, and at least 16 MB.

    The queue of unacknowledged messages is bounded by its size, too, since rejections may be large.
    """
    most = min(max(largest, _USUAL_MESSAGE_BYTES), _MOST_MESSAGE_BYTES)
    return {"message.max.bytes": most, "queue.buffering.max.kbytes": max(64 << 10, 2 * most >> 10)}


def producer(bootstrap_servers: str, **settings: Any) -> Producer:
    """An idempotent producer with acks=all that sends at once; batches form while a request is on its way.

    It has its producer id when this returns, unless the broker does not give it within `REQUEST_SECONDS`: librdkafka tries
    for it every 500 ms, and until then no record leaves (measured: 0.5 s, from a new broker 1 s, for the first ones).
    With a transactional.id it is ready for transactions, and one before it of that name is fenced.
    """
    has_id = False

    def look(statistics: str) -> None:
        nonlocal has_id
        has_id = has_id or json.loads(statistics)["eos"]["idemp_state"] == "Assigned"

    client = Producer(
        {
            **connection(bootstrap_servers),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            # With five records of one partition on their way, and more that wait, librdkafka's idempotent producer
            # spins until they are answered, and takes the core from who should answer (measured: 0.85 of a core, p99 of
            # the first seconds 1.1 s). Three requests of a record each are too few for that; of larger ones
            # `saker.engine.delivery.at_least_once` takes care.
            "max.in.flight.requests.per.connection": 3,
            "compression.type": "lz4",
            **room_for(_USUAL_MESSAGE_BYTES),
            "statistics.interval.ms": 100,  # there is no other sign of the id
            "stats_cb": look,
            **settings,
        },
        logger=_librdkafka_log,
    )
    if "transactional.id" in settings:
        _init_transactions(client, bootstrap_servers)
        return client
    deadline = time.monotonic() + REQUEST_SECONDS
    while not has_id and time.monotonic() < deadline:
        client.poll(0.1)
    if not has_id:
        _log.warning("no broker at %s assigned a producer id within %.0f s; retrying", bootstrap_servers, REQUEST_SECONDS)
    return client


def producers(bootstrap_servers: str, settings: Sequence[Mapping[str, Any]]) -> list[Producer]:
    """Each as `producer` makes it, all at the same time."""
    with ThreadPoolExecutor(len(settings)) as threads:
        return list(threads.map(lambda one: producer(bootstrap_servers, **one), settings))


def _init_transactions(client: Producer, bootstrap_servers: str) -> None:
    """As long as it takes: a broker that is away comes back."""
    while True:
        try:
            client.init_transactions(REQUEST_SECONDS)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise ServingError(f"cannot use transactions at {bootstrap_servers}: {error.args[0].str()}") from error
            _log.warning("no broker at %s is ready for transactions (%s); retrying", bootstrap_servers, error.args[0].str())
        else:
            return
