"""Consumer groups: their members, lag, where a partition starts, and static members that leave."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from saker.engine.kafka import clients
from saker.engine.kafka.batch import Partition
from saker.engine.kafka.clients import REQUEST_SECONDS
from saker.engine.kafka.security import for_kafka_python, security

_log = logging.getLogger("saker")

_COORDINATOR_MS = 5_000  # a pool that stops while no broker is there is not to wait for it
_ASK_SECONDS = 1.0  # not long: it is asked again
_NEW_CLIENT_SECONDS = 3.0
_BROKERS_ASKED = 2


class Lags:
    """Uncommitted records of each partition of a group. Used by one thread.

    The answers come from the brokers, so they include members that hang and partitions without a reader.
    """

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._new = partial(clients.observer, bootstrap_servers, group)
        self._observer = self._new()
        # While a transaction with offsets is being committed, `read_committed` clients get no offsets.
        self._offsets = clients.observer(bootstrap_servers, group, **{"isolation.level": "read_uncommitted"})
        #: For partitions that were searched: the committed offset, and the first record from there.
        self._first: dict[Partition, tuple[int, int]] = {}
        self._before: dict[Partition, tuple[int, int]] = {}

    def leaders(self, topic: str) -> dict[int, int]:
        """Partition -> number of its leader, none where there is no such topic; raises `KafkaException` without a broker."""
        for _ in range(_BROKERS_ASKED):
            with contextlib.suppress(KafkaException):  # the broker that was asked may be the only one that is away
                return self._leaders(topic, _ASK_SECONDS)
        # A client whose connections are to lost brokers only takes long to find another one. A new client asks all of them.
        self._observer.close()
        self._observer = self._new()
        return self._leaders(topic, _NEW_CLIENT_SECONDS)

    def _leaders(self, topic: str, seconds: float) -> dict[int, int]:
        found = self._observer.list_topics(topic, timeout=seconds).topics[topic]
        return {number: partition.leader for number, partition in found.partitions.items()}

    def ask(self, topic: str, leaders: dict[int, int]) -> dict[Partition, int]:
        """Of the partitions whose broker answers, if the group's coordinator does."""
        if not leaders:
            return {}
        try:
            committed = self._offsets.committed([TopicPartition(topic, number) for number in leaders], timeout=_ASK_SECONDS)
        except KafkaException:
            return {}
        found: dict[Partition, tuple[int, int]] = {}
        silent = set[int]()
        for at in committed:
            if at.error is not None or leaders[at.partition] in silent:
                continue
            try:
                low, high = self._observer.get_watermark_offsets(at, timeout=_ASK_SECONDS)
            except KafkaException:
                silent.add(leaders[at.partition])  # another second for each of its partitions would be lost
                continue
            found[topic, at.partition] = max(at.offset, low), high  # without a commit a group starts at the earliest record
        self._look_behind_markers(found)
        return {partition: high - self._first_record(partition, start, high) for partition, (start, high) in found.items()}

    def _first_record(self, partition: Partition, start: int, high: int) -> int:
        committed, first = self._first.get(partition, (-1, 0))
        return min(first, high) if committed == start else start

    def _look_behind_markers(self, found: dict[Partition, tuple[int, int]]) -> None:
        """An offset is also taken by the end of a transaction and by an aborted record, which no consumer is ever given.

        So where neither end of a lag has moved since the last time, its first record is looked for.
        """
        standing = {
            partition: start
            for partition, (start, high) in found.items()
            if start < high and self._before.get(partition) == (start, high) and self._first.get(partition, (-1, 0))[0] != start
        }
        self._before = found
        if not standing:
            return
        observer = self._observer
        observer.assign([TopicPartition(topic, number, start) for (topic, number), start in standing.items()])
        until = time.monotonic() + _ASK_SECONDS
        while standing and (left := until - time.monotonic()) > 0:
            for message in observer.consume(1, left):
                partition = (message.topic(), message.partition())
                error = message.error()
                if partition in standing and (error is None or error.code() == KafkaError._PARTITION_EOF):
                    self._first[partition] = standing.pop(partition), message.offset()
                    observer.pause([TopicPartition(*partition)])
        observer.unassign()


class Start(NamedTuple):
    """Where to continue in a partition: at the committed offset, or at the oldest record.

    why: what is wrong with the committed offset, if anything. deleted: number of records that are gone between the two.
    """

    at: TopicPartition
    why: str | None = None
    deleted: int = 0


def starts(consumer: Consumer, partitions: list[TopicPartition], topic_id: str, seconds: float) -> list[Start]:
    """The starts of assigned partitions; raises `KafkaException` if the broker does not answer in time.

    topic_id: of their topic now; empty if unknown.
    """
    return [_start(consumer, at, topic_id) for at in consumer.committed(partitions, timeout=seconds)]


def _start(consumer: Consumer, known: TopicPartition, topic_id: str) -> Start:
    if known.error is not None:
        raise KafkaException(known.error)
    if known.offset < 0:
        return Start(TopicPartition(known.topic, known.partition, OFFSET_BEGINNING))
    if known.metadata and topic_id and known.metadata != topic_id:
        return Start(
            TopicPartition(known.topic, known.partition, OFFSET_BEGINNING),
            f"offset {known.offset} was committed of a topic of this name that was deleted; reading this one from its start",
        )
    low, high = consumer.get_watermark_offsets(known, timeout=REQUEST_SECONDS)
    if low <= known.offset <= high:
        return Start(known)
    at = TopicPartition(known.topic, known.partition, low)
    if known.offset > high:
        return Start(
            at,
            f"offset {known.offset} was committed, and it ends at {high}: the topic was deleted and recreated, or has lost "
            f"records; reading all of it from {low}, what was scored before is scored again",
        )
    deleted = low - known.offset
    return Start(
        at,
        f"nothing is at offset {known.offset} any more, going on at {low}; {deleted} records were deleted before they were "
        "scored: see retention.ms of the topic, and the lag",
        deleted,
    )


class Described(NamedTuple):
    """A group of the classic protocol. members: the partitions of one topic that each has, by its static name if it has one.

    A member that joins a cooperative group first gets nothing, while others give up partitions for it. Those have no owner
    until the next rebalance.
    """

    stable: bool
    members: dict[str, frozenset[int]]

    def unread(self, partitions: int) -> frozenset[int]:
        """Those of the first `partitions` that no member has."""
        return frozenset(range(partitions)).difference(*self.members.values())


class GroupAdmin:
    """What is asked of the coordinator of a group, by kafka-python. One thread uses it.

    librdkafka's requests to a coordinator end the process by an assertion, or never return, when the broker goes away (2.16,
    rd_kafka_enq_once_del_source_return); and it has no call that removes a static member.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._client: Any = None
        self._settings = for_kafka_python(security())
        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters here is the exception

    @property
    def possible(self) -> bool:
        """Whether kafka-python supports the configured login."""
        return self._settings is not None

    def describe(self, group: str, topic: str) -> Described | None:
        """None if no broker answers, or if the group does not use the classic protocol."""
        found = self._ask(lambda client: client.describe_groups([group])[group])
        if found is None or found["error"] or found["protocol_type"] not in ("consumer", ""):
            return None
        members = {
            member["group_instance_id"] or member["member_id"]: frozenset(
                number
                for assigned in (member["member_assignment"] or {"assigned_partitions": []})["assigned_partitions"]
                if assigned["topic"] == topic
                for number in assigned["partitions"]
            )
            for member in found["members"]
        }
        return Described(found["group_state"] in ("Stable", "Empty"), members)

    def remove(self, group: str, instances: Iterable[str]) -> bool:
        """Take static members out of a group, so that their partitions need not wait for their session to time out.

        A living one joins again. Returns whether Kafka did so.
        """
        from kafka.admin import MemberToRemove

        members = [MemberToRemove(group_instance_id=name) for name in instances]
        return self._ask(lambda client: client.remove_group_members(group, members)) is not None

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, request: Callable[[Any], Any]) -> Any:
        """The answer; None if there is none in time."""
        from kafka import KafkaAdminClient

        if self._settings is None:
            return None
        try:
            if self._client is None:
                self._client = KafkaAdminClient(
                    bootstrap_servers=self._bootstrap_servers,
                    request_timeout_ms=_COORDINATOR_MS,
                    bootstrap_timeout_ms=_COORDINATOR_MS,
                    **self._settings,
                )
            return request(self._client)
        except Exception as error:  # noqa: BLE001 - kafka-python lets errors of sockets, SSL and of its own parser through
            _log.debug("the coordinator at %s does not answer: %r", self._bootstrap_servers, error)
            with contextlib.suppress(Exception):
                self.close()
            return None
