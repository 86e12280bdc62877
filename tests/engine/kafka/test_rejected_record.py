"""A rejection is its record byte for byte; one that does not fit its topic is cut, and says how long it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saker.engine.kafka.batch import Origin
from saker.engine.kafka.rejected_record import Headers, rejected_record
from saker.engine.records.rejection import NOT_JSON

REJECTION = NOT_JSON.of(0)
VALUES = st.one_of(st.none(), st.binary(max_size=5_000))
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=500))), max_size=8)


def origin(key: bytes | None, headers: Headers) -> Origin:
    return Origin("raw", 3, 17, 0, key, headers)


@given(VALUES, HEADERS, st.one_of(st.none(), st.binary(max_size=50)), st.integers(600, 6_000))
def test_it_fits_or_is_cut_to_fit(value: bytes | None, own: Headers, key: bytes | None, most: int) -> None:
    found, headers = rejected_record(REJECTION, value, origin(key, own), most)
    told = dict(headers)
    size = len(key or b"") + len(found or b"") + sum(len(name.encode()) + len(text or b"") for name, text in headers)
    assert size < most
    assert (told["saker.error.code"], told["saker.error.partition"], told["saker.error.offset"]) == (
        b"invalid_json",
        b"3",
        b"17",
    )
    if "saker.error.size" in told:
        assert value is not None
        assert found is not None
        assert told["saker.error.size"] == str(len(value)).encode()
        assert value.startswith(found)
    else:
        assert found == value
        assert headers[: len(own)] == own


@pytest.mark.parametrize("own", [[], [("trace", b"x" * 100)]])
def test_headers_go_before_the_value_is_given_up(own: Headers) -> None:
    found, headers = rejected_record(REJECTION, b"v" * 10_000, origin(None, own), 2_000)
    assert headers[: len(own)] == own
    assert 1_000 < len(found or b"") < 2_000
    found, headers = rejected_record(REJECTION, b"v" * 10_000, origin(None, [("large", b"x" * 5_000)]), 2_000)
    assert "large" not in dict(headers)
    assert 1_000 < len(found or b"") < 2_000
