from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from saker.engine.kafka import admin, clients
from tests.support.broker import silent


def test_a_producer_is_ready_when_it_is_given_out(bootstrap_servers: str, caplog: pytest.LogCaptureFixture) -> None:
    clients.producer(bootstrap_servers)
    told = [record.getMessage() for record in caplog.records if record.name == "saker"]
    assert told == []  # it warns when it has no producer id yet


def test_what_librdkafka_says_again_and_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    consumer = clients.consumer("127.0.0.1:1", **{"group.id": "nobody"})
    consumer.subscribe(["nothing"])
    until = time.monotonic() + 60
    while not caplog.records:
        assert time.monotonic() < until
        consumer.poll(0.1)
    for _ in range(10):  # another look at the broker each 50 ms
        consumer.poll(0.1)
    consumer.close()
    told = [record.getMessage() for record in caplog.records if "Connect to" in record.getMessage()]
    assert len(told) == 1
    assert "Connection refused" in told[0]


def test_how_often_it_was_said_comes_with_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    seldom = clients.Seldom()

    def told(text: str, *arguments: object) -> str | None:
        record = logging.makeLogRecord({"msg": text, "args": arguments})
        return record.getMessage() if seldom.filter(record) else None

    assert told("%s failed after %d ms", "broker 1", 3) == "broker 1 failed after 3 ms"
    assert told("%s failed after %d ms", "broker 2", 4) is None
    assert told("%s refused the password", "broker 1") == "broker 1 refused the password"
    now += 11
    assert told("%s failed after %d ms", "broker 1", 5) == "broker 1 failed after 5 ms (1 more like it)"
    now += 11
    assert told("%s failed after %d ms", "broker 1", 5) == "broker 1 failed after 5 ms"


def test_a_producer_does_not_spin_while_its_broker_is_silent(own_broker: Any) -> None:
    """librdkafka does, with more than three requests of a record each unanswered; the broker then lacks the core."""
    broker = own_broker()
    admin.create_topics(broker.bootstrap_servers, ["silent"], 1)
    producer = clients.producer(broker.bootstrap_servers)
    answers: list[Any] = []

    def send(count: int, pause: float = 0.001) -> None:
        for _ in range(count):
            producer.produce("silent", b"x", partition=0, on_delivery=lambda error, _: answers.append(error))
            producer.poll(pause)

    send(50)
    assert producer.flush(30) == 0
    with silent(broker.bootstrap_servers):
        send(3, pause=0.1)  # each in a request of its own
        wall, cpu = time.perf_counter(), time.process_time()
        send(500)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    assert producer.flush(30) == 0
    assert answers == [None] * 553
    assert share < 0.5, f"the client used {share:.0%} of a core while it had nothing to do"
