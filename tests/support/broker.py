"""The process of a broker: stop it for a while, or find it by its port."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil


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
