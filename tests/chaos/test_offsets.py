"""Offsets that are not there any more: said and counted, never jumped over in silence; and a group that has none begins at the
oldest record."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition

from bench.load import replay
from engine import kafka
from tests.conftest import Topics
from training import synthetic
from training.tables import to_records


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
    admin = kafka.admin(bootstrap_servers)
    for answer in admin.delete_records([TopicPartition(topics.raw, 2, ends[2] + 20)]).values():
        answer.result()

    serving = serve(str(generated_model.path), workers=1, kernels=kernels, ready=False)
    told = serving.await_line("deleted before they were scored")
    assert f"partition 2 of {topics.raw}: to be read from offset {ends[2]}, there are {ends[2] + 20} to" in told
    assert "; 20 records were deleted" in told
    results = read(topics.scored, 2_980)
    assert len({orjson.loads(result.value)["TransactionID"] for result in results}) == len(results) == 2_980
    while serving.metric("scored_transactions_total") < 1_980:
        pass
    assert serving.metric("deleted_records_total") == 20
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


def end_offsets(bootstrap_servers: str, topic: str) -> list[int]:
    consumer = kafka.consumer(bootstrap_servers, **{"group.id": "ends"})
    try:
        return [consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in range(4)]
    finally:
        consumer.close()
