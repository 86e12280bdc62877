"""Transactions follow one another by two producers: in order, each once, and none without the one before it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from bench.collect import Record, read_topic
from engine import kafka
from engine.config import EXACTLY_ONCE, ServeSettings
from engine.delivery import ExactlyOnce
from engine.errors import Fenced
from engine.kafka import TopicPartition
from engine.pipeline import Scored
from engine.transport import PublicTaken, Transport

COUNT = 30


class Stage:
    """An `ExactlyOnce` that ends a transaction whenever it is polled, with records to answer."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.servers, self.source = bootstrap_servers, f"delivery-{uuid.uuid4().hex[:8]}"
        self.output, self.group = f"{self.source}-out", f"{self.source}-group"
        kafka.create_topics(bootstrap_servers, [self.source, self.output], 1)
        sender = kafka.producer(bootstrap_servers)
        for number in range(COUNT):
            sender.produce(self.source, b"%d" % number)
        assert sender.flush(30) == 0
        settings = ServeSettings(
            bootstrap_servers,
            output=self.output,
            group=self.group,
            delivery=EXACTLY_ONCE,
            transaction_seconds=0.0,
        )
        self.consumer = kafka.consumer(bootstrap_servers, **{"group.id": self.group})
        self.consumer.assign([TopicPartition(self.source, 0, 0)])
        self.producer_settings = ExactlyOnce.producers(settings, "worker")
        producers = kafka.producers(bootstrap_servers, self.producer_settings)
        self.transport = Transport(self.consumer, producers, self.output, {(self.source, 0)})
        self.delivery = ExactlyOnce(self.consumer, self.transport, settings)

    def send(self, records: int) -> None:
        """The next records of the source as their own answers."""
        messages = self.consumer.consume(records, 30)
        taken = PublicTaken(messages)
        results = [message.value() or b"" for message in messages]
        indices = np.arange(records, dtype=np.int32)
        scored = Scored(results, indices, [], np.zeros(records), 0.5, {})
        self.delivery.send(taken, taken.positions(), scored)

    def committed(self) -> int:
        (committed,) = self.consumer.committed([TopicPartition(self.source, 0)], 30)
        return int(committed.offset)

    def results(self, count: int) -> list[Record]:
        # Not so long that an open transaction's time (60 s) would be up.
        return read_topic(self.servers, self.output, count, idle_seconds=20)


@pytest.fixture
def stage(bootstrap_servers: str) -> Iterator[Stage]:
    stage = Stage(bootstrap_servers)
    yield stage
    stage.consumer.close()


def test_results_come_once_and_in_order(stage: Stage) -> None:
    for _ in range(COUNT // 3):
        stage.send(3)
        stage.delivery.poll()
    assert stage.delivery.drain(10)
    assert [record.value for record in stage.results(COUNT)] == [b"%d" % number for number in range(COUNT)]
    assert stage.committed() == COUNT


def test_none_is_committed_without_the_one_before_it(stage: Stage) -> None:
    stage.send(3)
    stage.delivery.poll()
    assert stage.delivery.drain(10)
    stage.send(3)  # by the second producer
    assert stage.transport.producer.flush(10) == 0
    kafka.producer(stage.servers, **stage.producer_settings[1])  # fences it
    stage.delivery.poll()
    stage.send(3)  # by the first one again, whose own transaction is in order
    with pytest.raises(Fenced, match="another --instance"):
        stage.delivery.drain(10)
    stage.delivery.abort()
    # Nothing stays open either, or what comes behind would not be read.
    behind = kafka.producer(stage.servers)
    behind.produce(stage.output, b"behind", partition=0)
    assert behind.flush(10) == 0
    assert [record.value for record in stage.results(4)] == [b"0", b"1", b"2", b"behind"]
    assert stage.committed() == 3
