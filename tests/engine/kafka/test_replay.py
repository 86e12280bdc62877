from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from saker.engine.kafka.replay import LoadError, ahead, keyed, replay


def test_the_key_is_a_field_of_the_record() -> None:
    records = [b'{"card1":1234.0}', b'{"card1":1234}', b'{"card1":"x"}', b'{"card1":null}']
    assert [key for key, _ in keyed(records, "card1")] == [b"1234", b"1234", b"x", None]


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(LoadError, match="no field 'card9'"):
        list(keyed([b'{"card1":1}'], "card9"))


def test_a_maker_of_records_that_dies_is_not_waited_for() -> None:
    with pytest.raises(LoadError, match="exit code 3"):
        list(ahead(os._exit, 3))


def test_records_are_sent_when_they_are_due(bootstrap_servers: str, topics: Any, read: Any) -> None:
    sent = replay(
        [(b"k", b"%d" % number) for number in range(200)],
        bootstrap_servers=bootstrap_servers,
        topic=topics.raw,
        rate=400,
    )
    assert (sent.sent, sent.acknowledged, sent.errors) == (200, 200, [])
    messages = read(topics.raw, 200)
    assert [message.value for message in messages] == [b"%d" % number for number in range(200)]
    due = [message.timestamp_ms for message in messages]
    assert {later - earlier for earlier, later in itertools.pairwise(due)} == {2, 3}  # 2.5 ms, however late each left
    assert all(message.read_at * 1000 >= at for message, at in zip(messages, due, strict=True))
