"""A few records that are answered natively: the same results, positions and counts as by the way over Python."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saker.engine.config import ServeSettings
from saker.engine.delivery.at_least_once import AtLeastOnce
from saker.engine.delivery.fast_path import FastPath
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.kafka import admin, clients
from saker.engine.kafka.clients import TopicPartition
from saker.engine.kafka.native_transport import NativeTransport, TransportChoice
from saker.engine.kafka.reader import Record, read_topic
from saker.engine.kafka.rejected_record import PREFIX
from saker.engine.kernels import native
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch
from saker.engine.records.formats import Format
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.broker import silent

N = 300
BAD = {7: b"", 8: b"{", 9: b'{"TransactionID":1,"TransactionID":2}', 10: None}
HEADERS: list[tuple[str, bytes | None]] = [("trace", b"a")]


class Line:
    """A delivery on the native transport, fed as a worker feeds it."""

    def __init__(self, bootstrap_servers: str, model: ActiveModel, **more: Any) -> None:
        """more: settings."""
        self.servers, self.model, self.marker = bootstrap_servers, model, InFlightMarker()
        self.source = f"fast-path-{uuid.uuid4().hex[:8]}"
        self.output, self.rejected = f"{self.source}-out", f"{self.source}-rejected"
        admin.create_topics(bootstrap_servers, [self.source, self.output, self.rejected], 2)
        topics = (self.source, self.output, self.rejected, self.source)
        settings = self.settings = ServeSettings(bootstrap_servers, *topics, **more)
        choice = TransportChoice("native", "auto")
        self.consumer = clients.consumer(bootstrap_servers, **{"group.id": self.source}, **choice.client_settings)
        producers = clients.producers(
            bootstrap_servers, [choice.client_settings | one for one in AtLeastOnce.producers(settings, "")]
        )
        self.transport = choice.open(self.consumer, producers, self.output)
        assert isinstance(self.transport, NativeTransport)
        self.delivery = AtLeastOnce(self.consumer, self.transport, settings, self.marker)
        self.transport.attach((self.source, number) for number in (0, 1))
        self.delivery.use_model(model.native)
        #: Of the same clients and model; the tests of its own use it alone.
        self.fast_path = FastPath(self.transport, self.source)
        self.fast_path.use_model(model.native, self.marker, settings)
        self.consumer.assign([TopicPartition(self.source, number, 0) for number in (0, 1)])
        # Records that are sent together are one batch, and fetched at once: a flush does not wait for the linger.
        self.sender = clients.producer(bootstrap_servers, **{"linger.ms": 1000})

    def send(self, number: int, value: bytes | None) -> None:
        self.sender.produce(
            self.source,
            value,
            [None, b"%d" % number][number % 2],
            number % 3 == 0,
            headers=HEADERS if number % 5 == 0 else None,
        )

    def step(self) -> int:
        """As `Worker._step`; returns how many were answered over Python."""
        batch, errors = self.delivery.consume()
        assert errors == []
        if len(batch):
            self.delivery.send(batch, batch.positions(), score_batch(self.model, batch))
        self.delivery.poll()
        return len(batch)

    def committed(self) -> dict[int, int]:
        asked = [TopicPartition(self.source, number) for number in (0, 1)]
        return {at.partition: at.offset for at in self.consumer.committed(asked, 30)}

    def results(self, partition: int) -> int:
        """How many there are."""
        return int(self.consumer.get_watermark_offsets(TopicPartition(self.output, partition), 30)[1])

    def close(self) -> None:
        self.transport.close()


@pytest.fixture
def line(bootstrap_servers: str, generated_model: Any) -> Iterator[Line]:
    line = Line(bootstrap_servers, ActiveModel.load(generated_model.path, "fraud/1"))
    assert line.model.native is not None
    yield line
    line.close()


@pytest.fixture(scope="module")
def records() -> list[bytes | None]:
    frame = synthetic.frame(N, seed=5).drop(columns=["isFraud"])
    return [BAD.get(number, record) for number, record in enumerate(to_records(frame))]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_scores_are_written_as_by_orjson(score: float) -> None:
    extension, reason = native("auto")
    assert extension is not None, reason
    assert extension.FastPath.print_score(score) == orjson.dumps(score)


@pytest.mark.parametrize("power", range(-8, 19))
def test_scores_are_written_as_by_orjson_where_exponents_begin(power: int) -> None:
    extension, _ = native("auto")
    assert extension is not None
    for score in (10.0**power, -1.2345 * 10.0**power, 123.0 * 10.0**power):
        assert extension.FastPath.print_score(score) == orjson.dumps(score)


def test_it_answers_as_the_way_over_python(line: Line, records: list[bytes | None]) -> None:
    """Some come one by one, some many at once; some cannot be scored, and go between those that can over Python."""
    rng, sent, over_python = np.random.default_rng(1), 0, 0
    deadline = time.monotonic() + 120
    while sent < N:
        count = min(int(rng.choice([1, 2, 20], p=[0.5, 0.4, 0.1])), N - sent)
        for number in range(sent, sent + count):
            line.send(number, records[number])
        sent += count
        assert line.sender.flush(30) == 0
        over_python += line.step()
        assert line.marker.read().behind == {}
        # Now and then the next ones find none on their way, whatever time the broker takes; and in the end.
        while (rng.random() < 0.7 or sent == N) and sum(max(at, 0) for at in line.committed().values()) < sent:
            assert time.monotonic() < deadline, line.committed()
            over_python += line.step()
            line.delivery.drain(10)
    expected = score_batch(line.model, records)
    assert len(BAD) <= over_python < N - 50  # both had enough to do
    results = read_topic(line.servers, line.output, N - len(BAD))
    assert len(results) == N - len(BAD)
    by_partition: dict[int, list[Record]] = {0: [], 1: []}
    for result in results:
        by_partition[result.partition].append(result)
    for index, encoded in zip(expected.indices.tolist(), expected.results, strict=True):
        result = by_partition[index % 3 == 0].pop(0)
        assert result.key == [None, b"%d" % index][index % 2]
        assert result.headers == (HEADERS if index % 5 == 0 else [])
        assert _without_time(result.value) == _without_time(encoded)
    rejected = read_topic(line.servers, line.rejected, len(BAD))
    assert sorted(one.header(f"{PREFIX}code") for one in rejected) == sorted(one.reason for one in expected.rejections)
    counts = line.delivery.drain_counts()
    assert (counts.scored, counts.failed.total(), counts.in_flight) == (N - len(BAD), len(BAD), 0)
    assert counts.flagged == np.count_nonzero(expected.scores >= expected.threshold)
    assert counts.batch_records.total == sum(counts.latency.counts) == N
    assert counts.scores.total == pytest.approx(expected.scores.sum())
    batches = sum(counts.batch_records.counts)
    assert {stage: sum(histogram.counts) for stage, histogram in counts.stages.items()} == dict.fromkeys(counts.stages, batches)


def test_no_more_than_few_are_on_their_way(line: Line, records: list[bytes | None]) -> None:
    """And none while it has no model."""
    for number in range(N):
        line.send(number, records[0])
    assert line.sender.flush(30) == 0
    batch, _ = line.fast_path.poll(5, 10, 4)
    while len(batch) < 5:  # fewer may come first, and are answered
        assert line.fast_path.in_flight <= 4
        batch, _ = line.fast_path.poll(5, 10, 4)
    answered = line.fast_path.in_flight
    line.fast_path.use_model(None, line.marker, line.settings)
    del batch
    while len(line.fast_path.poll(3, 10, 100)[0]) == 0:
        pass
    assert line.fast_path.in_flight <= answered


def test_what_is_late_is_handed_out(line: Line, records: list[bytes | None]) -> None:
    line.fast_path.use_model(line.model.native, line.marker, replace(line.settings, late_ms=60_000))
    for partition, age_ms in ((0, 0), (1, 120_000)):
        line.sender.produce(line.source, records[0], None, partition, timestamp=int(time.time() * 1000) - age_ms)
    assert line.sender.flush(30) == 0
    handed_out: list[int] = []
    deadline = time.monotonic() + 60
    while line.results(0) < 1 or not handed_out:
        assert time.monotonic() < deadline
        batch, _ = line.fast_path.poll(1, 0.01, 100)
        handed_out += [batch.origin(index).partition for index in range(len(batch))]
    assert handed_out == [1]


def test_positions_of_dropped_partitions_are_not_reported(line: Line, records: list[bytes | None]) -> None:
    for number in range(2):
        line.send(number * 3 + 1 - number, records[0])  # partition 0, then 1
    assert line.sender.flush(30) == 0
    deadline = time.monotonic() + 60
    while line.fast_path.in_flight or [line.results(number) for number in (0, 1)] != [1, 1]:
        assert time.monotonic() < deadline
        line.fast_path.poll(1, 0.01, 100)
    line.fast_path.drop_partitions([(line.source, 0)])
    found = line.fast_path.drain_acknowledged()
    assert found is not None
    positions, answered = found
    assert positions == {(line.source, 1): 1}
    assert len(answered.scores) == 2
    assert line.fast_path.drain_acknowledged() is None


def test_records_of_dropped_partitions_stay_in_flight_until_they_are_acknowledged(
    own_broker: Any, generated_model: Any, records: list[bytes | None]
) -> None:
    """Otherwise another producer may overtake what librdkafka still has, and results change their order."""
    broker = own_broker()
    with contextlib.closing(Line(broker.bootstrap_servers, ActiveModel.load(generated_model.path, "fraud/1"))) as line:
        for _ in range(2):  # in one batch, so that both are fetched at once
            line.sender.produce(line.source, records[0], None, 0)
        assert line.sender.flush(30) == 0
        while len(line.fast_path.poll(1, 0.01, 0)[0]) == 0:
            pass
        with silent(broker.bootstrap_servers):
            line.fast_path.poll(1, 0.01, 100)
            assert line.fast_path.in_flight == 1
            line.fast_path.drop_partitions([(line.source, 0)])
            assert line.fast_path.in_flight == 1
        deadline = time.monotonic() + 60
        while line.fast_path.in_flight:
            assert time.monotonic() < deadline
            line.fast_path.poll(1, 0.01, 100)
        found = line.fast_path.drain_acknowledged()
        assert found is not None
        assert found[0] == {}


def test_a_skipped_record_is_not_committed_before_what_the_fast_path_has_in_flight(
    own_broker: Any, generated_model: Any, records: list[bytes | None]
) -> None:
    broker = own_broker()
    skipping = ActiveModel.load(generated_model.path, "fraud/1", records=Format(skip_deletes=True))
    with contextlib.closing(Line(broker.bootstrap_servers, skipping, max_batch=1)) as line:
        for value in (records[0], records[1], None):  # in one batch, so that all are fetched at once
            line.sender.produce(line.source, value, None, 0)
        assert line.sender.flush(30) == 0
        while len(line.fast_path.poll(1, 0.01, 0)[0]) == 0:
            pass
        with silent(broker.bootstrap_servers):
            deadline = time.monotonic() + 60
            while not line.step():
                assert time.monotonic() < deadline
            line.delivery.poll()
            assert line.delivery.in_flight == 2
            assert (line.source, 0) not in line.delivery._positions
        assert line.delivery.drain(60)
        assert line.committed()[0] == 3
        counts = line.delivery.drain_counts()
        assert (counts.scored, counts.skipped) == (1, {"tombstone": 1})


def _without_time(value: bytes | None) -> Any:
    assert value is not None
    result = json.loads(value)
    assert isinstance(result.pop("scored_at_ms"), int)
    return result
