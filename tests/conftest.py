"""Fixtures of all tests. What a test uses marks it (`MARKED_BY`), so `-m "not kafka"` needs no marker by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import settings

from saker import to_onnx
from saker.deploy.local.kafka import Broker
from saker.deploy.local.registry import SchemaRegistry
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka
from saker.deploy.local.tracking import Tracking
from saker.engine.kafka.reader import Record, read_topic
from saker.export.selfcheck.model_zoo import KINDS
from saker.training import synthetic
from saker.training.fit import Settings, Trained, train
from tests.support import payments
from tests.support.airflow import BINARY
from tests.support.broker import await_broker, started
from tests.support.scores import Model
from tests.support.serving import PARTITIONS, Read, Serve, Serving, Topics

ULB = Path(__file__).parent / "data" / "ulb_creditcard_sample.csv"

#: A test has a marker when it uses one of these fixtures, itself or by way of another one.
MARKED_BY = {
    "kafka": {"bootstrap_servers", "own_broker", "secure", "registry"},
    "mlflow": {"tracking_uri", "tracking_server"},
    "airflow": {"airflow"},
    "slow": {"wheel"},
}

# thorough: what `make test` and CI run. quick: a tenth of the examples, for `make check`.
settings.register_profile("thorough", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "thorough"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, fixtures in MARKED_BY.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(marker)
    # Files whose tests wait for servers first: those that only compute fill the cores meanwhile, and afterwards.
    waits = {item.path for item in items if any(item.get_closest_marker(marker) for marker in MARKED_BY)}
    items.sort(key=lambda item: item.path not in waits)


class SharedBroker:
    """One broker for all processes of a run with pytest-xdist: its controller starts it when it starts the first of them."""

    def __init__(self) -> None:
        self._broker: Broker | None = None

    def pytest_configure_node(self, node: Any) -> None:
        """A hook of pytest-xdist, in the controller."""
        if "not kafka" in (node.config.getoption("markexpr") or ""):
            return
        if self._broker is None:
            self._broker = Broker()
            self._broker.launch()
        node.workerinput["bootstrap_servers"] = self._broker.bootstrap_servers

    def pytest_sessionfinish(self) -> None:
        if self._broker is not None:
            self._broker.stop()


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.register(SharedBroker())


@pytest.fixture(scope="session")
def bootstrap_servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real broker for the session, also where several processes run it; each test uses topics of its own on it."""
    shared = getattr(request.config, "workerinput", {}).get("bootstrap_servers")
    if shared is None:
        with local_kafka() as address:
            yield address
        return
    with FileLock(tmp_path_factory.getbasetemp().parent / "broker.lock"):
        await_broker(shared)
        create_topics(shared, PARTITIONS)
    yield shared


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A real schema registry; its URL."""
    server = SchemaRegistry()
    try:
        server.launch()
        server.wait()
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def own_broker() -> Iterator[Callable[..., Broker]]:
    """Starts a broker that the test may stop, kill or silence; arguments are those of `Broker`."""
    with ExitStack() as stop:
        yield lambda **options: stop.enter_context(started(**options))


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with MLflow's tables: making them takes seconds, a copy does not."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    made = base / "mlflow-template.db"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            from mlflow.tracking import MlflowClient

            MlflowClient(f"sqlite:///{made}.new").search_experiments()
            Path(f"{made}.new").rename(made)
    return made


@pytest.fixture
def tracking_uri(tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """MLflow in a file of the test's own folder, which becomes the working directory; no model is in the cache."""
    shutil.copyfile(mlflow_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def tracking_server(mlflow_database: Path) -> Iterator[Callable[..., Tracking]]:
    """Launches an MLflow server; `wait` for it. Arguments are those of `Tracking`."""
    with ExitStack() as stop:

        def launch(*options: str) -> Tracking:
            tracking = Tracking(*options)
            stop.callback(tracking.stop)
            shutil.copyfile(mlflow_database, tracking.folder / "mlflow.db")
            tracking.launch()
            return tracking

        yield launch


@pytest.fixture(scope="session")
def airflow() -> Path:
    """Airflow's command, in an environment of its own, made by make."""
    assert BINARY.exists(), "`make .venv-airflow/.installed` makes it"
    return BINARY


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
            command = [sys.executable, "-m", "saker", "serve", "--model", model, "--workers", str(workers)]
            command += ["--kernels", kernels, "--model-poll", "0.2", "--metrics-port", "0"]
            command += ["--bootstrap-servers", bootstrap_servers, "--group", topics.group]
            command += ["--input", topics.raw, "--output", output, "--rejected", topics.rejected]
            process = subprocess.Popen(
                [*command, *options],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
            )
            stop.callback(process.wait)
            stop.callback(process.terminate)
            serving = Serving(process)
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


@pytest.fixture(scope="session")
def payments_model(tmp_path_factory: pytest.TempPathFactory) -> payments.Trained:
    """Of nested records: tests/support/payments.py."""
    return payments.trained_on_payments(tmp_path_factory.mktemp("payments"))


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
