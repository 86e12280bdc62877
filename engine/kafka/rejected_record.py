"""A rejection in its topic: the record byte for byte with its headers, followed by headers with the reason.

A rejection that is too large for the topic is truncated: `saker.error.size` is then the length of the whole value, and
`saker.error.key_size` that of a truncated key. A header of the record with such a name gets the prefix `original.`.
"""

from __future__ import annotations

from typing import NamedTuple

from saker.engine.config import TopicLimits
from saker.engine.kafka.batch import Headers, Origin, size_of
from saker.engine.kafka.topic_limits import most_bytes, takes_timestamp
from saker.engine.records.rejection import Rejection

PREFIX = "saker.error."


class RejectedRecord(NamedTuple):
    value: bytes | None
    key: bytes | None
    #: Below 0 for the time of its arrival.
    timestamp_ms: int
    headers: Headers


def rejected_record(rejection: Rejection, value: bytes | None, origin: Origin, limits: TopicLimits) -> RejectedRecord:
    """limits: of the topic of rejections, which takes what this returns."""
    why, key, most = _why(rejection, origin), origin.key, most_bytes(limits)
    own = [(f"original.{name}" if name.startswith(PREFIX) else name, text) for name, text in origin.headers or ()]
    if key is None and limits.needs_key:
        key = f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
    if len(value or b"") + len(key or b"") + size_of(own) + size_of(why) > most:
        if value is not None:
            why.append((f"{PREFIX}size", str(len(value)).encode()))
        if len(key or b"") + size_of(own) + size_of(why) > most:
            own = []
        if key is not None and len(key) + size_of(why) > most:
            why.append((f"{PREFIX}key_size", str(len(key)).encode()))
            key = key[: max(most - size_of(why), 0)]
        value = value and value[: max(most - len(key or b"") - size_of(own) - size_of(why), 0)]
    timestamp_ms = origin.timestamp_ms if takes_timestamp(limits, origin.timestamp_ms) else -1
    return RejectedRecord(value, key, timestamp_ms, [*own, *why])


def _why(rejection: Rejection, origin: Origin) -> Headers:
    told = {
        "code": rejection.reason,
        "field": rejection.field or "",
        "message": rejection.message,
        "topic": origin.topic,
        "partition": origin.partition,
        "offset": origin.offset,
    }
    return [(f"{PREFIX}{name}", str(value).encode()) for name, value in told.items()]
