"""The local stack: real servers on free ports in temporary folders, always stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from saker.deploy.local.kafka import Broker
from saker.deploy.local.registry import SchemaRegistry
from saker.deploy.local.tracking import Tracking
from saker.engine.kafka import admin, clients

RAW, SCORED, REJECTED = "raw-transactions", "scored-transactions", "rejected-transactions"
SHADOW = "shadow-scores"


@dataclass(frozen=True, slots=True)
class Stack:
    bootstrap_servers: str
    tracking_uri: str
    registry: str | None = None


@contextmanager
def local_kafka(partitions: int = 4, *, lasting: bool = False, usual_port: bool = False) -> Iterator[str]:
    """A broker with the topics of a pool and its shadow; its host:port. Stopped when the block or the process ends.

    lasting, usual_port: see `Broker`.
    """
    broker = Broker(lasting=lasting, usual_port=usual_port)
    try:
        broker.launch()
        broker.wait()
        create_topics(broker.bootstrap_servers, partitions)
        admin.create_topics(broker.bootstrap_servers, (SHADOW,), partitions)
        yield broker.bootstrap_servers
    finally:
        broker.stop()


@contextmanager
def local_stack(
    partitions: int = 4, *, lasting: bool = False, usual_ports: bool = False, registry: bool = False
) -> Iterator[Stack]:
    """Kafka with its topics, and MLflow, started in parallel. lasting: see `Broker`. usual_ports: 9092, 5000, 8081 if free.
    registry: with a schema registry.
    """
    with ExitStack() as stop:
        tracking = Tracking(usual_port=usual_ports)
        stop.callback(tracking.stop)
        tracking.launch()
        schemas = SchemaRegistry(usual_port=usual_ports) if registry else None
        if schemas is not None:
            stop.callback(schemas.stop)
            schemas.launch()
        bootstrap_servers = stop.enter_context(local_kafka(partitions, lasting=lasting, usual_port=usual_ports))
        tracking.wait()
        if schemas is not None:
            schemas.wait()
        yield Stack(bootstrap_servers, tracking.uri, None if schemas is None else schemas.url)


def create_topics(bootstrap_servers: str, partitions: int, suffix: str = "") -> None:
    admin.create_topics(bootstrap_servers, (RAW + suffix, SCORED + suffix), partitions)
    # A rejection is its record and seven headers more: it must fit where the record itself did.
    admin.create_topics(bootstrap_servers, (REJECTED + suffix,), partitions, {"max.message.bytes": str(2 << 20)})


def warm_up(bootstrap_servers: str, records: int = 10_000) -> None:
    """Send `records` one at a time and read them back, on a separate topic.

    A broker that has just started interprets its bytecode: the first second of traffic waited 50 to 500 ms (measured).
    A broker in production is past that, and so must be one on which latency is measured.
    """
    topic = "warm-up"
    admin.create_topics(bootstrap_servers, (topic,), 4)
    producer = clients.producer(bootstrap_servers)
    consumer = clients.consumer(bootstrap_servers, **{"group.id": topic})
    consumer.subscribe([topic])
    value = b"x" * 5_000
    for number in range(records):
        producer.produce(topic, value, partition=number % 4)
        producer.poll(0)
        consumer.poll(0.0005)
    producer.flush()
    consumer.close()
