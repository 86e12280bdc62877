"""Whether a topic accepts a record, so that a record whose result Kafka would refuse is rejected beforehand.

Kafka refuses a whole batch for one record, and the producer cannot continue, since later results would overtake it. So each
record is checked first. If the limits change in the meantime, `delivery` finds the record.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from saker.engine.config import TopicLimits
from saker.engine.kafka.batch import ConsumedBatch, Origin, size_of

# Kafka's message format 2: of the batch, and of a record the longest that its lengths can be.
_BATCH_BYTES, _RECORD_BYTES = 61, 36
_RESULT_BYTES = 1024  # what a result may have beyond the record that it answers: names, a score, a time
_FAR = 1 << 62


def most_bytes(limits: TopicLimits) -> int:
    """Of key, value and headers of one record."""
    return limits.max_bytes - _BATCH_BYTES - _RECORD_BYTES


def most_bytes_for_sure(limits: TopicLimits) -> int:
    """Of key, value and headers of a record whose result fits, whatever the result is."""
    return most_bytes(limits) - _RESULT_BYTES


def takes_timestamp(limits: TopicLimits, timestamp_ms: int) -> bool:
    """For a record that arrives now. A negative limit means none."""
    now = time.time() * 1000
    return timestamp_ms < 0 or now - limits.before_ms <= timestamp_ms <= now + limits.after_ms


def may_not_take(limits: TopicLimits, batch: ConsumedBatch) -> Sequence[int]:
    """Indices of the records whose results the topic may refuse: a few too many, but never too few."""
    now = int(time.time() * 1000)
    earliest, latest = (int(min(max(now + ms, -_FAR), _FAR)) for ms in (-limits.before_ms, limits.after_ms))
    return batch.beyond(most_bytes_for_sure(limits), earliest, latest, limits.needs_key)


def why_not(limits: TopicLimits, origin: Origin, length: int) -> str | None:
    """Why it would refuse a result of `length` bytes with this record's key, timestamp and headers; None if it takes it."""
    size, most = length + len(origin.key or b"") + size_of(origin.headers), most_bytes(limits)
    if size > most:
        return f"expected at most {most:,} bytes of result, key and headers (max.message.bytes), got {size:,}"
    if limits.needs_key and origin.key is None:
        return "expected a key, since the topic of results is compacted (cleanup.policy), got none"
    if not takes_timestamp(limits, origin.timestamp_ms):
        return (
            "expected a timestamp within message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic of "
            f"results, got {origin.timestamp_ms}"
        )
    return None
