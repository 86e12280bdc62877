from __future__ import annotations

import time
from typing import Any

import pytest

from deploy.local.kafka import Broker
from engine import kafka
from tests.engine.silent import silent


def test_a_producer_is_ready_when_it_is_given_out(bootstrap_servers: str, caplog: pytest.LogCaptureFixture) -> None:
    kafka.producer(bootstrap_servers)
    assert not caplog.records  # it warns when it has no producer id yet


def test_a_producer_does_not_spin_while_its_broker_is_silent() -> None:
    """librdkafka does, with more than three requests of a record each unanswered; the broker then lacks the core."""
    broker = Broker()
    try:
        broker.launch()
        broker.wait()
        kafka.create_topics(broker.bootstrap_servers, ["silent"], 1)
        producer = kafka.producer(broker.bootstrap_servers)
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
    finally:
        broker.stop()
