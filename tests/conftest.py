from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saker import to_onnx
from saker.deploy.local.server import free_port
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka
from saker.engine.kafka.reader import Record, read_topic
from saker.export.selfcheck.model_zoo import KINDS
from saker.training import synthetic
from saker.training.fit import Settings, Trained, train
from tests.support.scores import Model
from tests.support.serving import PARTITIONS, Read, Serve, Serving, Topics

ULB = Path(__file__).parent / "data" / "ulb_creditcard_sample.csv"


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """One real broker for the session; each test uses topics of its own on it."""
    with local_kafka() as address:
        yield address


@pytest.fixture
def topics(bootstrap_servers: str) -> Topics:
    suffix = f"-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap_servers, PARTITIONS, suffix)
    return Topics(RAW + suffix, SCORED + suffix, REJECTED + suffix, f"group{suffix}")


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


@pytest.fixture
def read(bootstrap_servers: str) -> Read:
    def read_records(topic: str, count: int, distinct: Callable[[Record], str] | None = None) -> list[Record]:
        return read_topic(bootstrap_servers, topic, count, distinct=distinct, idle_seconds=30)

    return read_records


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
