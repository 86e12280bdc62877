"""Artifacts on S3, by MLflow's configuration alone: through its server, and straight from the client."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from saker.deploy.local.server import Server, answers, free_port
from saker.deploy.local.tracking import Tracking
from saker.engine.model import registry
from saker.engine.model.session import open_session
from saker.export.registry import publish, run_artifacts
from saker.training.fit import Settings, train
from saker.training.tables import read_csv
from saker.training.track import log_run

ULB = Path(__file__).parents[2] / "data" / "ulb_creditcard_sample.csv"
CARDS = Settings(label="Class", time="Time", id_field="ID", rounds=20)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a local S3 that the environment points to."""
    server, port = Server("s3"), free_port()
    url = f"http://127.0.0.1:{port}"
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "saker",
        "AWS_SECRET_ACCESS_KEY": "saker",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        server.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
        server.wait_until(lambda: answers(url), timeout=60)
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="models")
        yield "models"
    finally:
        server.stop()


@pytest.mark.parametrize(
    "options",
    [("--artifacts-destination", "s3://models"), ("--no-serve-artifacts", "--default-artifact-root", "s3://models/direct")],
    ids=["through the server", "straight from the client"],
)
def test_a_model_goes_to_s3_and_comes_back(
    options: tuple[str, ...],
    bucket: str,
    tracking_server: Callable[..., Tracking],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing of it is in the cache
    tracking = tracking_server(*options)
    tracking.wait()
    trained = train(read_csv(ULB, "ID"), CARDS)
    exported = publish.export_run(log_run(trained, CARDS, {}, tracking.uri), tracking.uri)
    located = registry.locate(f"fraud/{exported.version}", tracking.uri)
    assert located.path.read_bytes() == exported.model.SerializeToString()
    assert open_session(located.path).contract.features == trained.contract.features
    newest, labels = run_artifacts.newest_rows(tracking.uri)
    assert (newest, labels) == (trained.records, trained.labels.tolist())
    stored = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]).list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Size"] for item in stored if item["Key"].endswith("/model.onnx")] == [located.path.stat().st_size]
