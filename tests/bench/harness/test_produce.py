"""What the load and the python loops send by: all of a batch, also where the producer's queue is smaller."""

from __future__ import annotations

import uuid

from saker.bench.harness.produce import produce
from saker.engine.kafka import admin, clients
from saker.engine.kafka.reader import read_topic

COUNT = 500


def test_a_batch_larger_than_the_queue_is_sent_once_and_whole(bootstrap_servers: str) -> None:
    topic = f"straight-{uuid.uuid4().hex[:8]}"
    admin.create_topics(bootstrap_servers, [topic], 1)
    producer = clients.producer(bootstrap_servers, **{"queue.buffering.max.messages": 7})
    produce(producer, topic, [{"value": b"%d" % number} for number in range(COUNT)], 0)
    assert producer.flush(30) == 0
    read = read_topic(bootstrap_servers, topic, COUNT)
    assert sorted(int(record.value or b"") for record in read) == list(range(COUNT))
