"""Topics change under a running pool: it says so, nothing is skipped, and what can be read is read."""

from __future__ import annotations

import os
import signal
from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from saker.engine.kafka import admin, clients
from saker.engine.kafka.reader import Record
from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.produce import send
from tests.support.serving import Topics

DELIVERIES = ["at_least_once", "exactly_once"]


def identifier(record: Record) -> int:
    return int(orjson.loads(record.value or b"")["TransactionID"])


def delete(bootstrap_servers: str, topic: str) -> None:
    client = clients.admin(bootstrap_servers)
    client.delete_topics([topic], operation_timeout=30)[topic].result()
    while topic in client.list_topics(timeout=10).topics:
        pass


def grow(bootstrap_servers: str, topic: str, partitions: int) -> None:
    client = clients.admin(bootstrap_servers)
    client.create_partitions([NewPartitions(topic, partitions)])[topic].result()


def await_committed(bootstrap_servers: str, topics: Topics, records: int) -> None:
    """Of all four partitions together."""
    observer = clients.observer(bootstrap_servers, topics.group)
    partitions = [TopicPartition(topics.raw, number) for number in range(4)]
    while sum(max(one.offset, 0) for one in observer.committed(partitions, timeout=10)) < records:
        pass
    observer.close()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_topic_that_is_made_anew_is_read_from_its_start(
    delivery: str, generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    """While the workers stand still it is filled past the offsets at which they go on."""
    records = to_records(synthetic.frame(2_000, seed=8).drop(columns=["isFraud"]))
    serving = serve(str(generated_model.path), workers=2, options=["--delivery", delivery])

    def put(part: list[bytes]) -> None:  # to each partition as many
        replay(((None, record) for record in part), bootstrap_servers=bootstrap_servers, topic=topics.raw)

    put(records[:400])
    read(topics.scored, 400)
    await_committed(bootstrap_servers, topics, 400)
    workers = serving.worker_ids()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    delete(bootstrap_servers, topics.raw)
    admin.create_topics(bootstrap_servers, [topics.raw], 4)
    put(records[400:])
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    serving.await_line(f"topic {topics.raw} was deleted and recreated")
    assert len({identifier(one) for one in read(topics.scored, len(records), distinct=identifier)}) == len(records)
    assert serving.metric("deleted_records_total") == 0
    assert serving.stop() == 0


def test_offsets_of_a_deleted_topic_are_not_those_of_the_next(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    """Whatever commits them meanwhile: each offset names its topic's id."""
    records = to_records(synthetic.frame(200, seed=9).drop(columns=["isFraud"]))
    replay(((None, record) for record in records), bootstrap_servers=bootstrap_servers, topic=topics.raw)
    consumer = clients.consumer(bootstrap_servers, **{"group.id": topics.group})
    foreign = [TopicPartition(topics.raw, number, 20 + number, "an id of another topic") for number in range(4)]
    consumer.commit(offsets=foreign, asynchronous=False)
    consumer.close()
    serving = serve(str(generated_model.path), workers=1, ready=False)
    serving.await_line("was committed of a topic of this name that was deleted; reading this one from its start")
    assert len(read(topics.scored, len(records))) == len(records)
    assert serving.stop() == 0


def test_an_offset_behind_the_end_is_told(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    records = to_records(synthetic.frame(200, seed=9).drop(columns=["isFraud"]))
    replay(((None, record) for record in records), bootstrap_servers=bootstrap_servers, topic=topics.raw)
    consumer = clients.consumer(bootstrap_servers, **{"group.id": topics.group})
    consumer.commit(offsets=[TopicPartition(topics.raw, 2, 1_000)], asynchronous=False)
    consumer.close()
    serving = serve(str(generated_model.path), workers=1, ready=False)
    assert "offset 1000 was committed, and it ends at 50" in serving.await_line(f"partition 2 of {topics.raw}")
    assert len(read(topics.scored, len(records))) == len(records)
    assert serving.stop() == 0


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_partitions_are_added(
    delivery: str, generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    """First to the input alone: a result keeps its record's partition, so the new ones wait, and the others do not."""
    records = to_records(synthetic.frame(600, seed=12).drop(columns=["isFraud"]))
    serving = serve(str(generated_model.path), workers=2, options=["--delivery", delivery])

    def put(part: list[bytes]) -> None:
        send(bootstrap_servers, topics.raw, [{"value": one, "partition": n % 6} for n, one in enumerate(part)])

    grow(bootstrap_servers, topics.raw, 6)
    put(records[:300])
    serving.await_line(f"of {topics.raw} are paused")
    assert len(read(topics.scored, 200)) == 200
    put(records[300:])
    assert len(read(topics.scored, 400)) == 400
    while (serving.metric("consumer_lag_records"), serving.metric("unread_partitions")) != (200, 2):
        assert serving.process.poll() is None
    for topic in (topics.scored, topics.rejected):
        grow(bootstrap_servers, topic, 6)
    results = read(topics.scored, len(records))
    assert len({identifier(one) for one in results}) == len(results) == len(records)
    while serving.metric("consumer_lag_records") or serving.metric("unread_partitions"):
        assert serving.process.poll() is None
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


def test_a_topic_that_is_gone_is_waited_for(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    records = to_records(synthetic.frame(400, seed=14).drop(columns=["isFraud"]))
    serving = serve(str(generated_model.path), workers=2)
    delete(bootstrap_servers, topics.raw)
    assert topics.raw in serving.await_line("waiting until it is created")
    admin.create_topics(bootstrap_servers, [topics.raw], 4)
    replay(((None, record) for record in records), bootstrap_servers=bootstrap_servers, topic=topics.raw)
    assert len(read(topics.scored, len(records))) == len(records)
    assert serving.stop() == 0


def test_lag_is_of_records_and_not_of_the_ends_of_transactions(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    records = to_records(synthetic.frame(40, seed=15).drop(columns=["isFraud"]))
    serving = serve(str(generated_model.path), workers=1)
    producer = clients.producer(bootstrap_servers, **{"transactional.id": topics.group})
    for start in range(0, 40, 10):
        for commit in (True, False):
            producer.begin_transaction()
            for number, record in enumerate(records[start : start + 10]):
                producer.produce(topics.raw, record, partition=number % 4)
            (producer.commit_transaction if commit else producer.abort_transaction)()
    assert len(read(topics.scored, 40)) == 40
    while serving.metric("consumer_lag_records"):
        assert serving.process.poll() is None
    assert serving.stop() == 0
