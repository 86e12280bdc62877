"""A rejection is its record byte for byte; one that does not fit its topic is cut, and says how long it was."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saker.engine.config import TopicLimits
from saker.engine.kafka.batch import Headers, Origin
from saker.engine.kafka.rejected_record import RejectedRecord, rejected_record
from saker.engine.records.rejection import NOT_JSON

REJECTION = NOT_JSON.of(0)
VALUES = st.one_of(st.none(), st.binary(max_size=5_000))
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=500))), max_size=8)


def origin(key: bytes | None, headers: Headers, timestamp_ms: int = 0) -> Origin:
    return Origin("raw", 3, 17, timestamp_ms, key, headers)


def size(found: RejectedRecord) -> int:
    headers = sum(len(name.encode()) + len(text or b"") for name, text in found.headers)
    return len(found.key or b"") + len(found.value or b"") + headers


@given(VALUES, HEADERS, st.one_of(st.none(), st.binary(max_size=5_000)), st.integers(800, 6_000))
def test_it_fits_or_is_cut_to_fit(value: bytes | None, own: Headers, key: bytes | None, most: int) -> None:
    found = rejected_record(REJECTION, value, origin(key, own), TopicLimits(most))
    told = dict(found.headers)
    assert size(found) < most
    where = (b"invalid_json", b"3", b"17")
    assert (told["saker.error.code"], told["saker.error.partition"], told["saker.error.offset"]) == where
    if "saker.error.size" in told:
        assert value is not None
        assert found.value is not None
        assert told["saker.error.size"] == str(len(value)).encode()
        assert value.startswith(found.value)
    elif size(found) < most // 2:
        assert found.value == value
        assert found.headers[: len(own)] == own
    if "saker.error.key_size" in told:
        assert key is not None
        assert told["saker.error.key_size"] == str(len(key)).encode()
        assert key.startswith(found.key or b"")
    else:
        assert found.key == key


@pytest.mark.parametrize("own", [[], [("trace", b"x" * 100)]])
def test_headers_go_before_the_value_is_given_up(own: Headers) -> None:
    found = rejected_record(REJECTION, b"v" * 10_000, origin(None, own), TopicLimits(2_000))
    assert found.headers[: len(own)] == own
    assert 1_000 < len(found.value or b"") < 2_000
    found = rejected_record(REJECTION, b"v" * 10_000, origin(None, [("large", b"x" * 5_000)]), TopicLimits(2_000))
    assert "large" not in dict(found.headers)
    assert 1_000 < len(found.value or b"") < 2_000


def test_a_record_cannot_speak_for_saker() -> None:
    own: Headers = [("saker.error.code", b"mine"), ("saker.error.topic", b"elsewhere"), ("trace", None)]
    found = rejected_record(REJECTION, b"{", origin(None, own), TopicLimits())
    names = [name for name, _ in found.headers]
    assert names[:3] == ["original.saker.error.code", "original.saker.error.topic", "trace"]
    assert len(names) == len(set(names))
    assert dict(found.headers)["saker.error.topic"] == b"raw"


def test_a_compacted_topic_gets_a_key_and_times_beyond_the_limits_are_left_out() -> None:
    limits = TopicLimits(needs_key=True, before_ms=60_000, after_ms=1_000)
    now = int(time.time() * 1000)
    for timestamp_ms, kept in ((now - 30_000, True), (now - 90_000, False), (now + 9_000, False), (-1, True)):
        found = rejected_record(REJECTION, b"{", origin(None, [], timestamp_ms), limits)
        assert found.key == b"raw/3/17"
        assert found.timestamp_ms == (timestamp_ms if kept else -1)
