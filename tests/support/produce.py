"""Records of any shape into a topic, each acknowledged."""

from __future__ import annotations

from typing import Any

from saker.engine.kafka import clients


def send(bootstrap_servers: str, topic: str, messages: list[dict[str, Any]], **settings: Any) -> None:
    """settings: of the producer."""
    producer = clients.producer(bootstrap_servers, **settings)
    answers: list[Any] = []
    for message in messages:
        while True:
            try:
                producer.produce(topic, on_delivery=lambda error, _: answers.append(error), **message)
            except BufferError:
                producer.poll(0.1)
            else:
                break
    assert producer.flush(30) == 0
    assert answers == [None] * len(messages)
