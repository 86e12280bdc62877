"""A rejection as it lies in its topic: the record byte for byte with its headers, and behind them headers that say why.

One that would be larger than the topic takes is cut: then `saker.error.size` is the length of the whole value.
"""

from __future__ import annotations

from collections.abc import Sequence

from saker.engine.kafka.batch import Origin
from saker.engine.records.rejection import Rejection

PREFIX = "saker.error."
Headers = list[tuple[str, bytes | None]]

# Kafka's message format 2: of the batch 61 bytes, of a record and of each header the longest that its lengths can be.
_BATCH, _RECORD, _HEADER = 61, 36, 10


def rejected_record(rejection: Rejection, value: bytes | None, origin: Origin, most: int) -> tuple[bytes | None, Headers]:
    """Value and headers of it. most: bytes that the topic takes (max.message.bytes), counted before compression."""
    why, own = _why(rejection, origin), origin.headers or []
    headers = [*own, *why]
    if value is None or len(value) <= most - _size(origin.key, headers):
        return value, headers
    why.append((f"{PREFIX}size", str(len(value)).encode()))
    headers = [*own, *why]
    if _size(origin.key, headers) > most:
        headers = why
    return value[: max(most - _size(origin.key, headers), 0)], headers


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


def _size(key: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    of_headers = sum(len(name.encode()) + len(value or b"") + _HEADER for name, value in headers)
    return _BATCH + _RECORD + len(key or b"") + of_headers
