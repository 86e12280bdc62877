"""confluent_kafka's `produce_batch`, until all is taken."""

from __future__ import annotations

from typing import Any

from saker.engine.kafka import clients


def produce(producer: clients.Producer, topic: str, batch: list[dict[str, Any]], partition: int) -> None:
    """Send all of `batch`, waiting while the queue of the producer is full.

    `produce_batch` raises nothing when the queue is full: it marks the messages that it did not take, anywhere in the batch.
    """
    while producer.produce_batch(topic, batch, partition=partition) < len(batch):
        batch = [message for message in batch if "_error" in message]
        for message in batch:
            if (error := message.pop("_error")).code() != clients.KafkaError._QUEUE_FULL:
                raise clients.KafkaException(error)
        producer.poll(0.01)
