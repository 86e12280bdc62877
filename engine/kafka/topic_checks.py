"""Whether the three topics fit each other: checked before the first record is taken, and by `saker doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from saker.engine.kafka import admin
from saker.engine.kafka.admin import Topic

#: librdkafka's batch.size: results are sent in batches of up to this many bytes, and a topic refuses a batch above its limit.
_BATCH_BYTES = 1_000_000
_SAFE = 2


class Finding(NamedTuple):
    """error: saker does not serve. warning: it does, and something will go wrong one day. note: worth knowing."""

    severity: Literal["error", "warning", "note"]
    text: str


def check(bootstrap_servers: str, source: str, output: str, rejected: str) -> tuple[list[Topic], list[Finding]]:
    """The topics of transactions, scores and rejections, and what is wrong with them.

    Raises `ServingError` if one does not exist, `BrokerUnreachable` if no broker answers.
    """
    found = admin.topics(bootstrap_servers, (source, output, rejected))
    return found, findings(*found)


def findings(source: Topic, output: Topic, rejected: Topic) -> list[Finding]:
    """Check the three topics of a pool against each other."""
    found = [*_partitions(source, output, rejected), *_limits(source, output, rejected), *_refusals(source, output)]
    found += _retention(source, output, rejected)
    return found + [finding for topic in (source, output, rejected) for finding in _replicas(topic)]


def _partitions(source: Topic, *others: Topic) -> Iterator[Finding]:
    for topic in others:
        counts = f"topic {topic.name} has {topic.partitions} partitions, {source.name} has {source.partitions}"
        if topic.partitions < source.partitions:
            yield Finding("error", f"{counts}: a result keeps its record's partition; give both the same number")
        elif topic.partitions > source.partitions:
            yield Finding(
                "warning", f"{counts}: a result keeps its record's partition, so some stay empty; give both the same number"
            )


def _limits(source: Topic, output: Topic, rejected: Topic) -> Iterator[Finding]:
    for topic in (output, rejected):
        if topic.max_message_bytes is not None and topic.max_message_bytes < _BATCH_BYTES:
            yield Finding(
                "error",
                f"topic {topic.name} accepts at most {topic.max_message_bytes:,} bytes (max.message.bytes), but saker sends "
                f"results in batches of up to {_BATCH_BYTES:,}; raise it to at least that",
            )
    if source.max_message_bytes and rejected.max_message_bytes and rejected.max_message_bytes <= source.max_message_bytes:
        yield Finding(
            "note",
            f"topic {rejected.name} accepts at most {rejected.max_message_bytes:,} bytes (max.message.bytes), {source.name} "
            f"{source.max_message_bytes:,}: a rejection is larger than its record, so the largest are truncated; raise it",
        )


def _refusals(source: Topic, output: Topic) -> Iterator[Finding]:
    """Of results only: rejections are changed to fit their topic."""
    if output.limits.needs_key and not source.limits.needs_key:
        yield Finding(
            "warning",
            f"topic {output.name} is compacted (cleanup.policy) and accepts no record without a key: transactions without one "
            "are rejected as undeliverable; set cleanup.policy=delete, or give every transaction a key",
        )
    narrow = [
        f"message.timestamp.{name}.max.ms={limit:.0f}"
        for name, limit, given in (
            ("before", output.limits.before_ms, source.limits.before_ms),
            ("after", output.limits.after_ms, source.limits.after_ms),
        )
        if limit < given and (name, source.timestamp_type) != ("after", "LogAppendTime")  # which is never in the future
    ]
    if narrow:
        yield Finding(
            "warning",
            f"topic {output.name} has {' and '.join(narrow)}, narrower than {source.name}: a result has its record's "
            "timestamp, and one outside these limits is rejected as undeliverable; use the limits of the transactions, or "
            "message.timestamp.type=LogAppendTime",
        )


def _retention(source: Topic, *others: Topic) -> Iterator[Finding]:
    for topic in others:
        kept, needed = topic.retention_ms, source.retention_ms
        if kept is None or needed is None or kept == -1 or topic.timestamp_type == "LogAppendTime":
            continue
        if needed == -1 or kept < needed:
            yield Finding(
                "warning",
                f"topic {topic.name} keeps records for {kept:,} ms (retention.ms), {source.name} for "
                f"{'ever' if needed == -1 else f'{needed:,} ms'}: a result has its record's timestamp, so Kafka may "
                "delete the result of an old record at once; use the same retention, or set "
                "message.timestamp.type=LogAppendTime",
            )


def _replicas(topic: Topic) -> Iterator[Finding]:
    needed = topic.min_insync_replicas
    if needed is not None and needed > topic.replicas:
        yield Finding(
            "error",
            f"topic {topic.name} has {topic.replicas} replicas, and min.insync.replicas is {needed}: "
            "Kafka acknowledges nothing; lower it, or add replicas",
        )
    elif topic.replicas == 1:
        yield Finding("note", f"topic {topic.name} has one replica, so its records are lost with their broker")
    elif needed is not None and needed < _SAFE:
        yield Finding(
            "warning",
            f"topic {topic.name} has {topic.replicas} replicas, and min.insync.replicas is {needed}: an acknowledged "
            "record may be on a single broker and lost with it; set it to 2",
        )
