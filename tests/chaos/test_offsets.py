"""Offsets that are not there any more: said and counted, never jumped over in silence; and a group that has none begins at the
oldest record."""

from __future__ import annotations

import os
import signal
from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition

from saker.engine.kafka import clients
from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.serving import Topics


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_records_that_retention_deleted_are_told(
    kernels: str, generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    records = to_records(synthetic.frame(3_000, seed=5).drop(columns=["isFraud"]))

    def send(part: list[bytes]) -> None:
        pairs = [(str(number % 50).encode(), record) for number, record in enumerate(part)]
        replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw)

    send(records[:1_000])
    serving = serve(str(generated_model.path), workers=1, kernels=kernels)  # a new group: what was there before it is scored
    assert len(read(topics.scored, 1_000)) == 1_000
    assert serving.stop() == 0
    ends = end_offsets(bootstrap_servers, topics.raw)
    send(records[1_000:])
    delete_before(bootstrap_servers, topics.raw, 2, ends[2] + 20)

    serving = serve(str(generated_model.path), workers=1, kernels=kernels, ready=False)
    told = serving.await_line("deleted before they were scored")
    assert (
        f"partition 2 of {topics.raw}: nothing is at offset {ends[2]} any more, going on at {ends[2] + 20}; 20 records" in told
    )
    results = read(topics.scored, 2_980)
    assert len({orjson.loads(result.value)["TransactionID"] for result in results}) == len(results) == 2_980
    while serving.metric("scored_transactions_total") < 1_980:
        pass
    assert serving.metric("deleted_records_total") == 20
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


def test_also_while_it_runs(generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any) -> None:
    records = to_records(synthetic.frame(400, seed=6).drop(columns=["isFraud"]))
    serving = serve(str(generated_model.path), workers=1)
    (worker,) = serving.worker_ids()

    def send(part: list[bytes]) -> None:  # to each partition as many
        replay(((None, record) for record in part), bootstrap_servers=bootstrap_servers, topic=topics.raw)

    send(records[:4])
    assert len(read(topics.scored, 4)) == 4
    while committed(bootstrap_servers, topics, 1) < 1:
        assert serving.process.poll() is None
    os.kill(worker, signal.SIGSTOP)
    send(records[4:])
    delete_before(bootstrap_servers, topics.raw, 1, 30)
    os.kill(worker, signal.SIGCONT)
    assert "going on at 30; 29 records" in serving.await_line("deleted before they were scored")
    results = [orjson.loads(result.value)["TransactionID"] for result in read(topics.scored, 371)]
    assert len(set(results)) == len(results) == 371
    assert serving.stop() == 0


def committed(bootstrap_servers: str, topics: Topics, partition: int) -> int:
    observer = clients.observer(bootstrap_servers, topics.group)
    try:
        return int(observer.committed([TopicPartition(topics.raw, partition)], timeout=10)[0].offset)
    finally:
        observer.close()


def delete_before(bootstrap_servers: str, topic: str, partition: int, offset: int) -> None:
    admin = clients.admin(bootstrap_servers)
    for answer in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        answer.result()


def end_offsets(bootstrap_servers: str, topic: str) -> list[int]:
    consumer = clients.consumer(bootstrap_servers, **{"group.id": "ends"})
    try:
        return [consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in range(4)]
    finally:
        consumer.close()
