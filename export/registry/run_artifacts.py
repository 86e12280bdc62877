"""Artifacts of a training run: the Booster, the contract and the newest labelled rows."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from saker.engine.config import BOOSTER, EXPERIMENT, MODEL, NEWEST
from saker.engine.model import registry
from saker.export.readers.lightgbm_file import open_model
from saker.export.registry.model_versions import CHALLENGER, RegistryError

_GZIP = b"\x1f\x8b"


def find_run(run: str, tracking_uri: str) -> str:
    client = MlflowClient(tracking_uri)
    if run != "latest":
        try:
            return str(client.get_run(run).info.run_id)
        except MlflowException as error:
            raise RegistryError(f"no run {run} at {tracking_uri}: {error.message}") from error
    experiment = client.get_experiment_by_name(EXPERIMENT)
    newest: list[Any] = []
    if experiment:
        newest = client.search_runs(
            [experiment.experiment_id],
            "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    if not newest:
        raise RegistryError(f"no finished run in experiment {EXPERIMENT} at {tracking_uri}; run `saker train` first")
    return str(newest[0].info.run_id)


def read_artifact(run_id: str, name: str, tracking_uri: str) -> bytes:
    try:
        return Path(download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=tracking_uri)).read_bytes()
    except (MlflowException, OSError) as error:
        raise RegistryError(f"run {run_id} has no artifact {name}; was it created by `saker train`? ({error})") from error


def booster_of(version: registry.ModelVersion, tracking_uri: str) -> Any:
    """The Booster that a registered version was made of; raises `RegistryError` when it is gone."""
    return load_booster(version.run_id, tracking_uri)


def load_booster(run_id: str, tracking_uri: str) -> Any:
    return open_model(read_artifact(run_id, BOOSTER, tracking_uri), f"run {run_id}: {BOOSTER}")


def newest_rows(tracking_uri: str) -> tuple[list[bytes], list[int]]:
    """The newest labelled records of the challenger's own run, which it was not trained on."""
    return labelled_records(registry.find_version(f"{MODEL}@{CHALLENGER}", tracking_uri).run_id, tracking_uri)


def labelled_records(run_id: str, tracking_uri: str) -> tuple[list[bytes], list[int]]:
    """The newest rows of a training run, which its model was not trained on: raw records and labels."""
    data = read_artifact(run_id, NEWEST, tracking_uri)
    # MLflow stores a .gz in S3 as a plain file with Content-Encoding, so through its server it arrives unpacked.
    lines = (gzip.decompress(data) if data.startswith(_GZIP) else data).split(b"\n")
    pairs = [line.split(b"\t", 1) for line in lines if line]
    return [record for _, record in pairs], [int(label) for label, _ in pairs]


def time_column(version: registry.ModelVersion, tracking_uri: str) -> str:
    """The time field of a record, from the training run of the version."""
    return str(MlflowClient(tracking_uri).get_run(version.run_id).data.params["time"])
