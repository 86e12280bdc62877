"""Results come in order, each once, and none is committed without its predecessor: in batches, and in transactions."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from saker.engine.config import AT_LEAST_ONCE, EXACTLY_ONCE, ServeSettings
from saker.engine.delivery.at_least_once import AtLeastOnce
from saker.engine.delivery.base import MANY, QUICK, Delivery
from saker.engine.delivery.exactly_once import ExactlyOnce
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.errors import Fenced, RestartWorker
from saker.engine.kafka import admin, clients
from saker.engine.kafka.batch import ConsumedBatch, PublicBatch
from saker.engine.kafka.clients import TopicPartition
from saker.engine.kafka.native_transport import TransportChoice
from saker.engine.kafka.reader import Record, read_topic
from saker.engine.pipeline import Scored
from tests.support.broker import silent

COUNT = 300


class Stage:
    """A delivery with records to answer; `ExactlyOnce` ends a transaction whenever it is polled."""

    def __init__(self, bootstrap_servers: str, deliver: type[Delivery] = ExactlyOnce, kernels: str = "off") -> None:
        self.servers, self.source = bootstrap_servers, f"delivery-{uuid.uuid4().hex[:8]}"
        self.output, self.group = f"{self.source}-out", f"{self.source}-group"
        admin.create_topics(bootstrap_servers, [self.source, self.output], 1)
        sender = clients.producer(bootstrap_servers)
        for number in range(COUNT):
            sender.produce(self.source, b"%d" % number)
        assert sender.flush(30) == 0
        settings = ServeSettings(
            bootstrap_servers,
            input=self.source,
            output=self.output,
            group=self.group,
            delivery=EXACTLY_ONCE if deliver is ExactlyOnce else AT_LEAST_ONCE,
            transaction_seconds=0.0,
        )
        choice = TransportChoice("auto", kernels)
        self.consumer = clients.consumer(bootstrap_servers, **{"group.id": self.group}, **choice.client_settings)
        self.producer_settings = deliver.producers(settings, "worker")
        producers = clients.producers(bootstrap_servers, [choice.client_settings | one for one in self.producer_settings])
        self.transport = choice.open(self.consumer, producers, self.output)
        self.transport.attach({(self.source, 0)})
        self.consumer.assign([TopicPartition(self.source, 0, 0)])
        self.delivery = deliver(self.consumer, self.transport, settings, InFlightMarker())

    def send(self, records: int) -> None:
        """The next records of the source as their own answers."""
        self.answer(self.consume(records))

    def consume(self, records: int) -> ConsumedBatch:
        return PublicBatch(self.consumer.consume(records, 30))

    def answer(self, batch: ConsumedBatch) -> None:
        results = [batch[index] or b"" for index in range(len(batch))]
        indices = np.arange(len(batch), dtype=np.int32)
        scored = Scored(results, indices, [], np.zeros(len(batch)), 0.5, {})
        self.delivery.send(batch, batch.positions(), scored)

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


def test_more_than_a_few_wait_for_those_before_them_and_go_as_one_batch(own_broker: Any) -> None:
    """Otherwise librdkafka takes a core for as long as the broker is silent."""
    broker = own_broker()
    with contextlib.ExitStack() as ends:
        stage = Stage(broker.bootstrap_servers, AtLeastOnce)
        ends.callback(stage.consumer.close)
        delivery, transport = stage.delivery, stage.transport
        stage.send(5)
        assert delivery.drain(30)
        batches = [stage.consume(5) for _ in range(COUNT // 5 - 2)]
        with silent(broker.bootstrap_servers):
            wall, cpu = time.perf_counter(), time.process_time()
            for batch in batches:
                stage.answer(batch)
                delivery.poll(0.005)
            share = (time.process_time() - cpu) / (time.perf_counter() - wall)
            assert delivery.holds
            assert transport.place == QUICK
            assert not delivery.drain(0.1)
        assert share < 0.5, f"{share:.0%} of a core while there was nothing to do"
        while delivery.holds:
            delivery.poll(0.1)
        assert transport.place == MANY
        assert delivery.drain(30)
        stage.send(5)
        assert transport.place == QUICK
        assert delivery.drain(30)
        assert not delivery.holds
        assert [record.value for record in stage.results(COUNT)] == [b"%d" % number for number in range(COUNT)]
        assert stage.committed() == COUNT


def test_a_batch_does_not_wait_for_its_linger(bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saker.engine.delivery.at_least_once.LINGER_MS", (0.0, 3000.0))
    stage = Stage(bootstrap_servers, AtLeastOnce)
    in_time = False
    with contextlib.closing(stage.consumer):
        for _ in range(5):  # librdkafka's thread may not get a core while it is asked to hurry
            stage.send(20)
            assert stage.transport.place == MANY
            in_time = in_time or stage.delivery.drain(1)
            assert stage.delivery.drain(30)
    assert in_time


def test_what_is_held_is_given_up_with_the_worker(bootstrap_servers: str) -> None:
    """A consumer does not close while its records are held natively."""
    stage = Stage(bootstrap_servers, AtLeastOnce, kernels="auto")
    while not stage.delivery.holds:  # nothing is polled, so the first ones stay unanswered
        batch, _ = stage.transport.poll(10, 1)
        if len(batch):
            stage.answer(batch)
    del batch
    stage.delivery.abort()
    closing = threading.Thread(target=stage.transport.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


def test_none_is_committed_without_the_one_before_it(stage: Stage) -> None:
    stage.send(3)
    stage.delivery.poll()
    assert stage.delivery.drain(10)
    stage.send(3)  # by the second producer
    assert stage.transport.producer.flush(10) == 0
    clients.producer(stage.servers, **stage.producer_settings[1])  # fences it
    stage.delivery.poll()
    stage.send(3)  # by the first one again, whose own transaction is in order
    with pytest.raises(Fenced, match="another --instance"):
        stage.delivery.drain(10)
    stage.delivery.abort()
    # Nothing stays open either, or what comes behind would not be read.
    behind = clients.producer(stage.servers)
    behind.produce(stage.output, b"behind", partition=0)
    assert behind.flush(10) == 0
    assert [record.value for record in stage.results(4)] == [b"0", b"1", b"2", b"behind"]
    assert stage.committed() == 3


def test_a_transaction_is_given_up_in_its_time(own_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that goes away just when it is handed the offsets: librdkafka would wait a minute, whatever time it is given."""
    monkeypatch.setattr("saker.engine.delivery.exactly_once._TRANSACTION_SECONDS", 1.0)
    broker = own_broker()
    with contextlib.ExitStack() as ends:
        stage = Stage(broker.bootstrap_servers)
        ends.callback(stage.consumer.close)
        stage.send(3)
        assert stage.transport.producer.flush(30) == 0
        with silent(broker.bootstrap_servers), ThreadPoolExecutor(1) as thread:
            assert isinstance(thread.submit(stage.delivery.drain, 0).exception(30), RestartWorker)
