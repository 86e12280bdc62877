"""Consumer groups: members, lag, where a partition starts, and static members that leave."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from saker.engine.kafka.clients import REQUEST_SECONDS
from saker.engine.kafka.security import for_kafka_python, security

_log = logging.getLogger("saker")

_HAND_OVER_MS = 5_000  # a pool that stops while no broker is there is not to wait for it
_ASK_SECONDS = 1  # not long: who asks has signals to answer, and asks again


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
    return [_start(consumer, at) for at in consumer.committed(partitions, timeout=REQUEST_SECONDS)]


def _start(consumer: Consumer, known: TopicPartition) -> Start:
    if known.error is not None:
        raise KafkaException(known.error)
    if known.offset < 0:
        return Start(TopicPartition(known.topic, known.partition, OFFSET_BEGINNING), known.offset, None)
    low, high = consumer.get_watermark_offsets(known, timeout=REQUEST_SECONDS)
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
