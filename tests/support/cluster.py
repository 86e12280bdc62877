"""Three brokers that are each controller and replica, of which one may be lost."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from saker.deploy.local.kafka import Broker
from saker.deploy.local.server import free_port
from saker.engine.kafka import clients
from tests.support.broker import listener

BROKERS = 3


@dataclass(frozen=True, slots=True)
class Cluster:
    brokers: list[Broker]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def leader(self, topic: str, partition: int) -> Broker:
        found = clients.admin(self.bootstrap_servers).list_topics(topic, timeout=10).topics[topic]
        number: int = found.partitions[partition].leader
        return self.brokers[number - 1]

    def kill(self, broker: Broker) -> None:
        process = psutil.Process(listener(broker.bootstrap_servers))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Everything is kept by all three, and two must have what is acknowledged."""
    controllers = [f"127.0.0.1:{free_port()}" for _ in range(BROKERS)]
    voters = ",".join(f"{number}@{address}" for number, address in enumerate(controllers, 1))
    brokers = []
    with contextlib.ExitStack() as stack:
        for number, controller in enumerate(controllers, 1):
            broker = Broker()
            stack.callback(broker.stop)
            broker.settings |= {
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://{broker.bootstrap_servers},CONTROLLER://{controller}",
                "default.replication.factor": "3",
                "min.insync.replicas": "2",
                "offsets.topic.replication.factor": "3",
                "transaction.state.log.replication.factor": "3",
                "transaction.state.log.min.isr": "2",
                "share.coordinator.state.topic.replication.factor": "3",
                "share.coordinator.state.topic.min.isr": "2",
            }
            broker.launch()
            brokers.append(broker)
        made = Cluster(brokers)
        for broker in brokers:
            broker.wait()
        client = clients.admin(made.bootstrap_servers)
        while len(client.list_topics(timeout=10).brokers) < BROKERS:
            pass
        yield made
