"""Topics: create them, and read their partitions and limits."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from saker.engine.config import TopicLimits
from saker.engine.errors import ServingError
from saker.engine.kafka.clients import QUIET, REQUEST_SECONDS, BrokerUnreachable, admin, connection

_NO_LIMIT = 2**63 - 1
_ASK_SECONDS = 1.0  # of repeated requests
_NO_ID = "A" * 22  # a UUID of zeros
_LIMITS = {
    "max.message.bytes": int,
    "min.insync.replicas": int,
    "retention.ms": int,
    "message.timestamp.type": str,
    "message.timestamp.before.max.ms": int,
    "message.timestamp.after.max.ms": int,
    "cleanup.policy": str,
    "retention.bytes": int,
}


def is_ready(bootstrap_servers: str) -> bool:
    """Whether a broker answers a metadata request within a second."""
    try:
        client = AdminClient({**connection(bootstrap_servers), "reconnect.backoff.max.ms": 100, **QUIET})
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def create_topics(
    bootstrap_servers: str,
    names: Iterable[str],
    partitions: int,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create the topics that do not exist. On return, the broker knows all of them."""
    client = admin(bootstrap_servers)
    topics = [NewTopic(name, partitions, config=dict(config or {})) for name in names]
    for name, future in client.create_topics(topics, operation_timeout=REQUEST_SECONDS).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ServingError(f"topic {name!r} cannot be created: {error.args[0].str()}") from error
    # The controller has them; brokers hear of it a moment later, which on a machine with too much to do is seconds.
    deadline = time.monotonic() + REQUEST_SECONDS
    while missing := {topic.topic for topic in topics} - client.list_topics(timeout=REQUEST_SECONDS).topics.keys():
        if time.monotonic() > deadline:
            raise ServingError(f"still missing {REQUEST_SECONDS:.0f} s: {', '.join(sorted(missing))}; start again")
        time.sleep(0.01)


class Topic(NamedTuple):
    """replicas: of the partition with the fewest. None: the broker does not report it. retention_ms,
    retention_bytes: -1 is no limit.
    timestamp_type: CreateTime (the sender's, which retention counts from) or LogAppendTime (of the arrival).
    timestamp_before_ms, timestamp_after_ms: how far a sender's may lie before and after the arrival.
    """

    name: str
    partitions: int
    replicas: int
    max_message_bytes: int | None
    min_insync_replicas: int | None
    retention_ms: int | None
    timestamp_type: str | None
    timestamp_before_ms: int | None = None
    timestamp_after_ms: int | None = None
    cleanup_policy: str | None = None
    retention_bytes: int | None = None

    @property
    def limits(self) -> TopicLimits:
        """Of single records; the timestamps of a topic with LogAppendTime are its own."""
        own_time = self.timestamp_type == "LogAppendTime"
        before, after = (
            math.inf if own_time or ms is None or ms >= _NO_LIMIT else ms
            for ms in (self.timestamp_before_ms, self.timestamp_after_ms)
        )
        limits = TopicLimits(needs_key="compact" in (self.cleanup_policy or ""), before_ms=before, after_ms=after)
        return limits if self.max_message_bytes is None else replace(limits, max_bytes=self.max_message_bytes)


def topics(bootstrap_servers: str, names: Iterable[str]) -> list[Topic]:
    """As they are now, in this order; raises `ServingError` when the broker does not answer or a topic is missing."""
    client, names = admin(bootstrap_servers), list(names)
    found = _metadata(client, bootstrap_servers, names)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    limits = {}
    for resource, future in client.describe_configs(resources, request_timeout=REQUEST_SECONDS).items():
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


class Shape(NamedTuple):
    """topic_id: a recreated topic has another one. Empty if the broker does not know it."""

    partitions: int
    topic_id: str


def shapes(client: AdminClient, names: Iterable[str]) -> dict[str, Shape]:
    """Of the topics that there are, as they are now; raises `BrokerUnreachable` when no broker answers."""
    found = {}
    for name, future in client.describe_topics(TopicCollection(list(names)), request_timeout=_ASK_SECONDS).items():
        try:
            told = future.result(2 * _ASK_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise BrokerUnreachable(f"topic {name} cannot be described: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise BrokerUnreachable(f"topic {name} cannot be described: no answer") from error
        else:
            topic_id = str(told.topic_id)
            found[name] = Shape(len(told.partitions), "" if topic_id == _NO_ID else topic_id)
    return found


def partition_counts(bootstrap_servers: str, names: Iterable[str]) -> dict[str, int]:
    """Partitions of each topic; raises as `topics`."""
    found = _metadata(admin(bootstrap_servers), bootstrap_servers, names := list(names))
    return {name: len(found[name].partitions) for name in names}


def _metadata(client: AdminClient, bootstrap_servers: str, names: list[str]) -> Any:
    try:
        found = client.list_topics(timeout=REQUEST_SECONDS).topics
    except KafkaException as error:
        raise BrokerUnreachable(
            f"no Kafka broker answered at {bootstrap_servers} within {REQUEST_SECONDS:.0f} s: check --bootstrap-servers, "
            "or start one with `saker stack`",
        ) from error
    if missing := [name for name in names if name not in found]:
        raise ServingError(f"topics not found at {bootstrap_servers}: {', '.join(missing)}; create them first")
    return found
