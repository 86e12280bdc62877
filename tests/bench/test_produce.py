"""What the load and the straight loops send by: all of a batch, also where the producer's queue is smaller."""

from __future__ import annotations

import uuid

from bench.collect import read_topic
from bench.produce import produce
from engine import kafka

COUNT = 500


def test_a_batch_larger_than_the_queue_is_sent_once_and_whole(bootstrap_servers: str) -> None:
    topic = f"straight-{uuid.uuid4().hex[:8]}"
    kafka.create_topics(bootstrap_servers, [topic], 1)
    producer = kafka.producer(bootstrap_servers, **{"queue.buffering.max.messages": 7})
    produce(producer, topic, [{"value": b"%d" % number} for number in range(COUNT)], 0)
    assert producer.flush(30) == 0
    read = read_topic(bootstrap_servers, topic, COUNT)
    assert sorted(int(record.value or b"") for record in read) == list(range(COUNT))
