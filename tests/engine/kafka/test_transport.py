"""The native transport does what the public one does, on the same real Kafka."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from saker.engine.errors import ServingError
from saker.engine.kafka import admin, clients, librdkafka_handle
from saker.engine.kafka.batch import ConsumedBatch, Origin
from saker.engine.kafka.clients import TopicPartition
from saker.engine.kafka.librdkafka_handle import ClientHandle
from saker.engine.kafka.native_transport import NativeTransport, TransportChoice
from saker.engine.kafka.reader import read_topic
from saker.engine.kafka.transport import Acknowledgement, Transport
from saker.engine.kernels import Native
from saker.engine.records.decode import Identifiers
from saker.engine.records.encode import Encoder

N = 400
FOR_EVER = {"retention.ms": "-1"}  # the records' timestamps are of 2023: Kafka would delete them at its next look
HEADERS: list[tuple[str, bytes | None]] = [("trace", b"\x00a"), ("trace", b""), ("none", None)]


@pytest.fixture(scope="module")
def source(bootstrap_servers: str) -> str:
    """A topic of two partitions with records of every sort."""
    topic = f"transport-{uuid.uuid4().hex[:8]}"
    admin.create_topics(bootstrap_servers, [topic], 2, FOR_EVER)
    producer = clients.producer(bootstrap_servers)
    for n in range(N):
        key = [None, b"", b"key-%d" % n][n % 3]
        value = None if n == 7 else b"" if n == 8 else b'{"id":%d}' % n
        headers = HEADERS if n % 2 else None
        producer.produce(topic, value, key, n % 5 == 0, headers=headers, timestamp=1_700_000_000_000 + n)
    assert producer.flush(30) == 0
    return topic


class Client:
    """A transport with the clients that it works on."""

    def __init__(self, bootstrap_servers: str, source: str, output: str, kernels: str, **settings: Any) -> None:
        choice = TransportChoice("auto", kernels)
        self.consumer = clients.consumer(bootstrap_servers, **{"group.id": "transport"}, **choice.client_settings)
        self.producer = clients.producer(bootstrap_servers, **choice.client_settings, **settings)
        self.transport, self.reason = choice.open(self.consumer, [self.producer], output), choice.reason
        self.transport.attach({(source, 0), (source, 1)})
        self.consumer.assign([TopicPartition(source, partition, 0) for partition in (0, 1)])

    def batches(self, most: int) -> Iterator[ConsumedBatch]:
        left, until = N, time.monotonic() + 60
        while left:
            assert time.monotonic() < until, f"{self.transport.backend}: {left} of {N} records did not come"
            batch, errors = self.transport.poll(most, 1)
            assert errors == []
            if len(batch):
                left -= len(batch)
                yield batch

    def close(self) -> None:
        self.transport.close()


@pytest.fixture
def client(bootstrap_servers: str, source: str) -> Iterator[Any]:
    opened: list[Client] = []

    def make(kernels: str, output: str = "none", **settings: Any) -> Client:
        opened.append(Client(bootstrap_servers, source, output, kernels, **settings))
        assert isinstance(opened[-1].transport, NativeTransport if kernels == "auto" else Transport), opened[-1].reason
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def seen(client: Client, most: int) -> dict[int, list[tuple[Any, ...]]]:
    """Partition -> what was polled of it, and of each batch what was said of it."""
    found: dict[int, list[tuple[Any, ...]]] = {0: [], 1: []}
    for batch in client.batches(most):
        n = len(batch)
        origins = [batch.origin(i) for i in range(n)]
        times = np.empty(n, np.int64)
        batch.timestamps(times)
        assert times.tolist() == [origin.timestamp_ms for origin in origins]
        assert batch.positions() == {(o.topic, o.partition): o.offset + 1 for o in origins}
        with pytest.raises(IndexError):
            batch[n]
        for i, origin in enumerate(origins):
            found[origin.partition].append((batch[i], *origin))
    return found


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_both_take_the_same(client: Any, most: int) -> None:
    public, native = seen(client("off"), most), seen(client("auto"), most)
    assert native == public
    assert sum(map(len, native.values())) == N
    assert {headers and tuple(headers) for *_, headers in native[0]} == {None, tuple(HEADERS)}


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_results_carry_what_their_records_had_also_through_a_full_queue(
    client: Any, bootstrap_servers: str, source: str, kernels: str
) -> None:
    output = f"{source}-{kernels}-{uuid.uuid4().hex[:8]}"
    admin.create_topics(bootstrap_servers, [output], 2, FOR_EVER)
    one = client(kernels, output, **{"queue.buffering.max.messages": 10})
    encoder = Encoder("id", 0.5, "m", kernels)
    acknowledgements: list[Acknowledgement] = []
    sent: dict[int, list[Origin]] = {0: [], 1: []}
    for batch in one.batches(150):
        indices = np.array([i for i in range(len(batch)) if batch[i]], np.int32)
        numbers = [b"%d" % int((batch[i] or b"")[6:-1]) for i in indices]
        ids = Identifiers(numbers, np.arange(len(numbers), dtype=np.int32), np.zeros(len(numbers), np.int64),
                          np.array([len(number) for number in numbers]), b"")  # fmt: skip
        results = encoder.encode(ids, np.full(len(numbers), 0.25), 17)
        acknowledgements.append(one.transport.send(batch, indices, results))
        for i in indices:
            origin = batch.origin(int(i))
            sent[origin.partition].append(origin)
    assert one.producer.flush(30) == 0
    assert all(one.done() for one in acknowledgements)
    assert {one.in_order for one in acknowledgements} == {kernels == "auto"}
    read = read_topic(bootstrap_servers, output, N - 2)
    for partition, origins in sent.items():
        came = [(r.key, r.headers or None, r.timestamp_ms) for r in read if r.partition == partition]
        assert came == [(o.key, o.headers, o.timestamp_ms) for o in origins]


def test_a_batch_is_delivered_when_each_of_its_partitions_is(client: Any, bootstrap_servers: str, source: str) -> None:
    output = f"{source}-{uuid.uuid4().hex[:8]}"
    admin.create_topics(bootstrap_servers, [output], 2, FOR_EVER)
    one = client("auto", output, **{"linger.ms": 60_000})  # nothing goes before it is flushed
    encoder, acknowledgements = Encoder("id", 0.5, "m"), []
    for batch in one.batches(100):
        indices = np.arange(len(batch), dtype=np.int32)
        ids = Identifiers([b"7"] * len(batch), indices, np.zeros(len(batch), np.int64), np.ones(len(batch), np.int64), b"")
        results = encoder.encode(ids, np.full(len(batch), 0.25), 17)
        acknowledgements.append(one.transport.send(batch, indices, results))
    assert len(acknowledgements) > 1
    assert not any(one.done() for one in acknowledgements)
    assert one.producer.flush(30) == 0
    assert all(one.done() for one in acknowledgements)


def test_what_an_idle_producer_has_to_tell_does_not_pile_up(bootstrap_servers: str) -> None:
    busy, idle = clients.producers(bootstrap_servers, [{}, {}])
    transport = Transport(clients.consumer(bootstrap_servers, **{"group.id": "transport"}), [busy, idle], "none")
    deadline = time.monotonic() + 30
    while len(idle) < 3 and time.monotonic() < deadline:
        busy.poll(0.1)
    assert len(idle) >= 3, "it tells its statistics"
    while len(idle) and time.monotonic() < deadline:
        transport.poll_producers(0.1)
    assert len(idle) == 0


def test_a_handle_that_librdkafka_did_not_announce_is_not_touched(client: Any, extension: Native) -> None:
    native = client("auto")
    plain = clients.consumer("localhost:1", **{"group.id": "none"})
    assert plain.handle == 0  # made without the plugin
    for handle in (0, 8, native.consumer.handle + 8, 2**63):
        with pytest.raises(ValueError, match="librdkafka knows no such client"):
            extension.ConsumerQueue(plain, handle, Origin)
        with pytest.raises(ValueError, match="librdkafka knows no such client"):
            extension.ResultProducer(plain, handle, "output")


def test_a_client_that_was_closed_is_not_touched(extension: Native) -> None:
    settings = TransportChoice("native", "auto").client_settings
    consumer = clients.consumer("localhost:1", **{"group.id": "none"}, **settings)
    assert consumer.handle
    consumer.close()
    with pytest.raises(ValueError, match="librdkafka knows no such client"):
        extension.ConsumerQueue(consumer, consumer.handle, Origin)


def test_a_consumer_is_no_producer(client: Any, extension: Native) -> None:
    native = client("auto")
    with pytest.raises(ValueError, match="the client is no producer"):
        extension.ResultProducer(native.consumer, native.consumer.handle, "output")
    with pytest.raises(ValueError, match="the client is no consumer"):
        extension.ConsumerQueue(native.producer, native.producer.handle, Origin)


def test_clients_that_the_plugin_does_not_know_get_the_public_transport() -> None:
    choice = TransportChoice("auto", "auto")
    consumer = clients.consumer("localhost:1", **{"group.id": "none"})
    consumer.handle = ClientHandle(1 << 20)
    assert choice.open(consumer, [], "output").backend == "public"
    assert "confluent_kafka's clients are not as expected" in choice.reason


def test_an_untested_confluent_kafka_gets_the_public_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(librdkafka_handle, "TESTED_SERIES", ("1.9",))
    assert "it was tested with 1.9 only" in TransportChoice("auto", "auto").reason
    with pytest.raises(ServingError, match=r"--transport native: confluent-kafka .* is installed"):
        TransportChoice("native", "auto")


def test_the_public_transport_can_be_asked_for() -> None:
    choice = TransportChoice("public", "auto")
    assert (choice.reason, choice.client_settings) == ("", {})


def test_a_queue_that_is_closed_during_a_poll_lives_until_its_end(client: Any) -> None:
    native = client("auto")
    for _ in native.batches(1000):
        pass
    queue = native.transport.queue
    with ThreadPoolExecutor(4) as threads:
        polls = [threads.submit(queue.poll, 10, 500) for _ in range(4)]
        queue.close()
        assert [len(poll.result(30)[0]) for poll in polls] == [0] * 4
    with pytest.raises(ValueError, match="expected an open ConsumerQueue"):
        queue.poll(1, 0)


def test_what_does_not_belong_together_is_refused(client: Any) -> None:
    native = client("auto")
    producer = native.transport.result_producers[0]
    nothing = np.empty(0, np.int32)
    lines = Encoder("id", 0.5, "m").encode(
        Identifiers([], nothing, np.empty(0, np.int64), np.empty(0, np.int64), b""), np.empty(0), 0
    )
    batch = next(native.batches(10))
    for messages, indices, results in (([], nothing, lines), (batch, np.zeros(1, np.int32), lines), (batch, nothing, [])):
        with pytest.raises(ValueError, match="expected MessageBatch"):
            producer.send(messages, indices, results, 0)
