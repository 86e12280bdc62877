from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import lightgbm
import pandas as pd
import pytest

from bench.collect import Record, read_topic
from bench.kinds import KINDS
from deploy.local.server import free_port
from deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka
from export import to_onnx
from training import synthetic
from training.fit import Settings, Trained, train

PARTITIONS = 4
ULB = Path(__file__).parent / "data" / "ulb_creditcard_sample.csv"


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """One real broker for the session; each test uses topics of its own on it."""
    with local_kafka() as address:
        yield address


@dataclass(frozen=True, slots=True)
class Topics:
    raw: str
    scored: str
    rejected: str
    group: str


@pytest.fixture
def topics(bootstrap_servers: str) -> Topics:
    suffix = f"-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap_servers, PARTITIONS, suffix)
    return Topics(RAW + suffix, SCORED + suffix, REJECTED + suffix, f"group{suffix}")


@dataclass
class Serving:
    """`saker serve` as its user runs it: a process of its own, known by its addresses."""

    process: subprocess.Popen[str]
    url: str
    _lines: Queue[str | None] = field(default_factory=Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)  # pytest shows it where a test fails
            self._lines.put(line)
        self._lines.put(None)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = [line for line in self.get("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def await_line(self, text: str) -> str:
        """Read its log up to a line with `text`."""
        while (line := self._lines.get(timeout=90)) is not None:
            if text in line:
                return line
        raise AssertionError(f"saker serve ended with {self.process.wait()} before it said {text!r}")

    def rest_of_log(self) -> str:
        """What it said that was not awaited, once it has ended."""
        return "".join(line for line in iter(self._lines.get, None) if line is not None)

    def worker_ids(self) -> list[int]:
        return worker_ids(self.process.pid)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def worker_ids(pool: int) -> list[int]:
    children = Path(f"/proc/{pool}/task/{pool}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


Serve = Callable[..., Serving]


@pytest.fixture
def serve(bootstrap_servers: str, topics: Topics) -> Iterator[Serve]:
    with ExitStack() as stop:

        def start(
            model: str,
            workers: int = 2,
            tracking_uri: str = "",
            kernels: str = "auto",
            output: str = topics.scored,
            ready: bool = True,
            options: Sequence[str] = (),
        ) -> Serving:
            port = free_port()
            command = [
                sys.executable,
                "-m",
                "saker",
                "serve",
                "--model",
                model,
                "--workers",
                str(workers),
                "--kernels",
                kernels,
            ]
            command += [
                "--model-poll",
                "0.2",
                "--bootstrap-servers",
                bootstrap_servers,
                "--metrics-port",
                str(port),
                "--group",
                topics.group,
            ]
            command += ["--input", topics.raw, "--output", output, "--rejected", topics.rejected, *options]
            process = subprocess.Popen(
                command,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
            )
            stop.callback(process.wait)
            stop.callback(process.terminate)
            serving = Serving(process, f"http://127.0.0.1:{port}")
            if ready:
                serving.await_line("ready: every partition")
            return serving

        yield start


Read = Callable[..., list[Record]]


@pytest.fixture
def read(bootstrap_servers: str) -> Read:
    def read_records(topic: str, count: int, distinct: Callable[[Record], str] | None = None) -> list[Record]:
        return read_topic(bootstrap_servers, topic, count, distinct=distinct, idle_seconds=30)

    return read_records


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model, its file, and records that it never saw."""

    booster: lightgbm.Booster
    path: Path
    trained: Trained


@pytest.fixture(scope="session")
def generated_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained on generated transactions with every column."""
    return _model(train(synthetic.frame(10_000), Settings(rounds=40)), tmp_path_factory)


@pytest.fixture(scope="session")
def cards_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained on real card transactions."""
    settings = Settings(label="Class", time="Time", id_field="ID", rounds=60)
    table = pd.read_csv(ULB)
    table.insert(0, "ID", range(len(table)))
    return _model(train(table, settings), tmp_path_factory)


def _model(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "fraud.onnx"
    path.write_bytes(to_onnx(trained.booster, trained.contract).SerializeToString())
    return Model(trained.booster, path, trained)


@pytest.fixture(scope="session")
def trained() -> Any:
    """Name -> model of that kind; trained once, and nobody changes it."""
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            models[name] = KINDS[name]()
        return models[name]

    return get
