"""Brokers of a test's own: start one, stop it for a while, find its process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from saker.deploy.local.kafka import Broker
from saker.engine.kafka import admin, clients


@contextlib.contextmanager
def started(**options: Any) -> Iterator[Broker]:
    """A broker that serves; options of `Broker`."""
    broker = Broker(**options)
    try:
        broker.launch()
        broker.wait()
        yield broker
    finally:
        broker.stop()


def await_broker(bootstrap_servers: str) -> None:
    """One that somebody else has launched."""
    deadline = time.monotonic() + 60
    while not admin.is_ready(bootstrap_servers):
        assert time.monotonic() < deadline, f"no broker at {bootstrap_servers}"


@contextlib.contextmanager
def silent(bootstrap_servers: str) -> Iterator[None]:
    """The broker keeps its connections and answers nothing while this is open."""
    (java,) = _java_processes(bootstrap_servers)
    os.kill(java, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(java, signal.SIGCONT)


def _java_processes(bootstrap_servers: str) -> list[int]:
    """Brokers whose configuration names this address."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text().split("\0")
        except OSError:  # it ended meanwhile
            continue
        if (
            arguments[0].endswith("java")
            and "kafka.Kafka" in arguments
            and bootstrap_servers in Path(arguments[-2]).read_text()
        ):
            found.append(int(process.name))
    return found


def listener(bootstrap_servers: str) -> int:
    port = int(bootstrap_servers.rpartition(":")[2])
    return next(int(c.pid) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port)


def configure(bootstrap_servers: str, topic: str, settings: Mapping[str, str]) -> None:
    """Change a topic's configuration, as `kafka-configs --alter` does."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    client = clients.admin(bootstrap_servers)
    for done in client.incremental_alter_configs([resource]).values():
        done.result(30)
