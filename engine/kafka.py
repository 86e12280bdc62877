"""The only module that imports confluent_kafka: clients as saker sets them up, and topics."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from engine.errors import ServingError
from engine.security import for_kafka_python, security

__all__ = ["Consumer", "KafkaError", "KafkaException", "Message", "Producer", "TopicPartition"]

_log = logging.getLogger("saker")

# librdkafka logs a broker that is not up yet, and its own clean-up; what matters here arrives as an exception.
_QUIET = {"log_level": 2}
_SECONDS = 10.0
_LIMITS = {"max.message.bytes": int, "min.insync.replicas": int, "retention.ms": int, "message.timestamp.type": str}
_LOG_SECONDS = 10.0
_HAND_OVER_MS = 5_000  # a pool that stops while no broker is there is not to wait for it
_ASK_SECONDS = 1  # not long: who asks has signals to answer, and asks again


class Seldom(logging.Filter):
    """Of lines that differ in their numbers only, one in `_LOG_SECONDS`, with how many there were since the one before.

    librdkafka looks for a broker that does not answer twenty times a second, with each client, and logs each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}
        self._dropped: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
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


def _client(bootstrap_servers: str) -> dict[str, Any]:
    # librdkafka's own limit is 10 s: so long would a broker that is back wait for its clients.
    return {"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 1000, **security()}


class BrokerUnreachable(ServingError):
    """No broker answers: it may be starting, and it may be another's address."""


def is_ready(bootstrap_servers: str) -> bool:
    """Whether a broker answers metadata; waits up to a second for it."""
    try:
        client = AdminClient({**_client(bootstrap_servers), "reconnect.backoff.max.ms": 100, **_QUIET})
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def create_topics(
    bootstrap_servers: str,
    names: Iterable[str],
    partitions: int,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create topics; one that exists is left as it is. When it returns, the broker tells of all of them."""
    client = admin(bootstrap_servers)
    topics = [NewTopic(name, partitions, config=dict(config or {})) for name in names]
    for name, future in client.create_topics(topics, operation_timeout=_SECONDS).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ServingError(f"topic {name!r} cannot be created: {error.args[0].str()}") from error
    # The controller has them; brokers hear of it a moment later, which on a machine with too much to do is seconds.
    deadline = time.monotonic() + _SECONDS
    while missing := {topic.topic for topic in topics} - client.list_topics(timeout=_SECONDS).topics.keys():
        if time.monotonic() > deadline:
            raise ServingError(f"created and not there after {_SECONDS:.0f} s: {', '.join(sorted(missing))}; start again")
        time.sleep(0.01)


class Topic(NamedTuple):
    """replicas: of the partition that has fewest. What the broker does not tell is None. retention_ms: -1 is for ever.
    timestamp_type: CreateTime (the sender's, which retention counts from) or LogAppendTime (of the arrival).
    """

    name: str
    partitions: int
    replicas: int
    max_message_bytes: int | None
    min_insync_replicas: int | None
    retention_ms: int | None
    timestamp_type: str | None


def topics(bootstrap_servers: str, names: Iterable[str]) -> list[Topic]:
    """As they are now, in this order; raises `ServingError` when the broker does not answer or a topic is missing."""
    client, names = admin(bootstrap_servers), list(names)
    found = _metadata(client, bootstrap_servers, names)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    limits = {}
    for resource, future in client.describe_configs(resources, request_timeout=_SECONDS).items():
        with contextlib.suppress(KafkaException):  # it may not be allowed to everybody
            told = future.result()
            limits[resource.name] = {name: kind(told[name].value) for name, kind in _LIMITS.items() if name in told}
    return [
        Topic(
            name,
            len(found[name].partitions),
            min(len(partition.replicas) for partition in found[name].partitions.values()),
            *(limits.get(name, {}).get(limit) for limit in _LIMITS),
        )
        for name in names
    ]


def partition_counts(bootstrap_servers: str, names: Iterable[str]) -> dict[str, int]:
    """Partitions of each topic; raises as `topics`."""
    found = _metadata(admin(bootstrap_servers), bootstrap_servers, names := list(names))
    return {name: len(found[name].partitions) for name in names}


def _metadata(client: AdminClient, bootstrap_servers: str, names: list[str]) -> Any:
    try:
        found = client.list_topics(timeout=_SECONDS).topics
    except KafkaException as error:
        raise BrokerUnreachable(
            f"no Kafka broker answered at {bootstrap_servers} within {_SECONDS:.0f} s: check --bootstrap-servers, "
            "or start one with `saker stack`",
        ) from error
    if missing := [name for name in names if name not in found]:
        raise ServingError(f"topics not found at {bootstrap_servers}: {', '.join(missing)}; create them first")
    return found


def is_settled(client: AdminClient, group: str, topic: str, partitions: int) -> bool:
    """Whether each partition of `topic` has a member of `group` that reads it.

    A member that joins a cooperative group is first given nothing, and others give up partitions for it: those are
    nobody's until the rebalance after that.
    """
    found = _described(client, group)
    if found is None:
        return False
    owned = {p.partition for member in found.members for p in member.assignment.topic_partitions if p.topic == topic}
    return found.state == ConsumerGroupState.STABLE and len(owned) == partitions


def members(client: AdminClient, group: str) -> int | None:
    """How many members a group has: 0 if there is no such group, None while it rebalances."""
    found = _described(client, group)
    if found is None:
        return None
    if found.state in (ConsumerGroupState.DEAD, ConsumerGroupState.EMPTY):
        return 0
    return len(found.members) if found.state == ConsumerGroupState.STABLE else None


def observer(bootstrap_servers: str, group: str) -> Consumer:
    """A consumer for `lags`, which never joins the group."""
    return Consumer({**_client(bootstrap_servers), "group.id": group, **_QUIET})


def lags(observer: Consumer, topic: str, partitions: int) -> dict[tuple[str, int], int] | None:
    """Records of each partition that the observer's group has not committed; None where no broker answers.

    Asked of the broker and not of the members: it is told of a member that hangs, and of a partition that nobody reads.
    Not by an admin client: with the broker gone its requests to a coordinator hang for good, or end the process by an
    assertion (librdkafka 2.16, rd_kafka_enq_once_del_source_return).
    """
    found = {}
    try:
        for at in observer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=_ASK_SECONDS):
            low, high = observer.get_watermark_offsets(at, timeout=_ASK_SECONDS)
            found[topic, at.partition] = high - max(at.offset, low)  # without a commit a group starts at the earliest record
    except KafkaException:
        return None
    return found


class Start(NamedTuple):
    """Where a partition is read on: behind what the group committed, or at the oldest record.

    deleted: how many records are gone between the two; None where there was nothing to go on behind, or it is still there.
    """

    at: TopicPartition
    committed: int
    deleted: int | None


def starts(consumer: Consumer, partitions: list[TopicPartition]) -> list[Start]:
    """Of partitions that the consumer is given; raises `KafkaException` when the broker does not tell."""
    return [_start(consumer, at) for at in consumer.committed(partitions, timeout=_SECONDS)]


def _start(consumer: Consumer, known: TopicPartition) -> Start:
    if known.error is not None:
        raise KafkaException(known.error)
    if known.offset < 0:
        return Start(TopicPartition(known.topic, known.partition, OFFSET_BEGINNING), known.offset, None)
    low, high = consumer.get_watermark_offsets(known, timeout=_SECONDS)
    if low <= known.offset <= high:
        return Start(known, known.offset, None)
    # Retention was quicker, or the topic was made anew.
    return Start(TopicPartition(known.topic, known.partition, low), known.offset, max(low - known.offset, 0))


def _described(client: AdminClient, group: str) -> Any:
    """The group as its coordinator describes it, None when it does not answer."""
    try:
        return client.describe_consumer_groups([group], request_timeout=_ASK_SECONDS)[group].result()
    except KafkaException:
        return None


def hand_over(bootstrap_servers: str, group: str, instances: Iterable[str]) -> None:
    """Take static members out of a group, after they closed: otherwise their partitions wait for the session to time out.

    librdkafka has no call for it (a static member's close leaves it in the group on purpose).
    """
    from kafka import KafkaAdminClient
    from kafka.admin import MemberToRemove
    from kafka.errors import KafkaError as PythonKafkaError

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters here is the exception
    if (settings := for_kafka_python(security())) is None:
        _log.warning(
            "partitions are handed over when the session of their members times out: kafka-python has no such settings"
        )
        return
    try:
        client = KafkaAdminClient(
            bootstrap_servers=bootstrap_servers,
            request_timeout_ms=_HAND_OVER_MS,
            bootstrap_timeout_ms=_HAND_OVER_MS,
            **settings,
        )
        try:
            client.remove_group_members(group, [MemberToRemove(group_instance_id=name) for name in instances])
        finally:
            client.close()
    except PythonKafkaError as error:
        _log.warning("partitions are handed over when the session of their members times out: %s", error)


def admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({**_client(bootstrap_servers), **_QUIET})


def consumer(bootstrap_servers: str, **settings: Any) -> Consumer:
    """A consumer tuned for tail latency: librdkafka's defaults wait up to 500 ms for more to come or after an error."""
    return Consumer(
        {
            **_client(bootstrap_servers),
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


def producer(bootstrap_servers: str, **settings: Any) -> Producer:
    """An idempotent producer with acks=all that sends at once; batches form while a request is on its way.

    It has its producer id when this returns, unless the broker does not give it within `_SECONDS`: librdkafka tries
    for it every 500 ms, and until then no record leaves (measured: 0.5 s, from a new broker 1 s, for the first ones).
    With a transactional.id it is ready for transactions, and one before it of that name is fenced.
    """
    has_id = False

    def look(statistics: str) -> None:
        nonlocal has_id
        has_id = has_id or json.loads(statistics)["eos"]["idemp_state"] == "Assigned"

    client = Producer(
        {
            **_client(bootstrap_servers),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            # With five records of one partition on their way, and more that wait, librdkafka's idempotent producer
            # spins until they are answered, and takes the core from who should answer (measured: 0.85 of a core, p99 of
            # the first seconds 1.1 s). Three requests of a record each are too few for that; of larger ones
            # `engine.waves` takes care.
            "max.in.flight.requests.per.connection": 3,
            "compression.type": "lz4",
            "message.max.bytes": 16 << 20,
            # What waits to be acknowledged is bounded by its size too: rejections may be large. Then there is no taking more.
            "queue.buffering.max.kbytes": 64 << 10,
            "statistics.interval.ms": 100,  # nothing else tells of the id
            "stats_cb": look,
            **settings,
        },
        logger=_librdkafka_log,
    )
    if "transactional.id" in settings:
        _init_transactions(client, bootstrap_servers)
        return client
    deadline = time.monotonic() + _SECONDS
    while not has_id and time.monotonic() < deadline:
        client.poll(0.1)
    if not has_id:
        _log.warning("no broker at %s gave a producer id in %.0f s; trying on", bootstrap_servers, _SECONDS)
    return client


def producers(bootstrap_servers: str, settings: Sequence[Mapping[str, Any]]) -> list[Producer]:
    """Each as `producer` makes it, all at the same time."""
    with ThreadPoolExecutor(len(settings)) as threads:
        return list(threads.map(lambda one: producer(bootstrap_servers, **one), settings))


def _init_transactions(client: Producer, bootstrap_servers: str) -> None:
    """As long as it takes: a broker that is away comes back."""
    while True:
        try:
            client.init_transactions(_SECONDS)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise ServingError(f"no transactions at {bootstrap_servers}: {error.args[0].str()}") from error
            _log.warning("no broker at %s is ready for transactions (%s); trying on", bootstrap_servers, error.args[0].str())
        else:
            return
