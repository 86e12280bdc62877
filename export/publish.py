"""From a training run to the registry: convert, prove, register as challenger; promote to champion."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.metadata
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import mlflow.onnx
import numpy as np
import onnx
import pandas as pd
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from engine import registry
from engine.config import BOOSTER, CONTRACT, EXPERIMENT, MODEL, NEWEST
from engine.contract import PARITY_KEY, Contract, read_metadata
from engine.decode import Decoder
from engine.errors import SakerError
from engine.session import open_session
from export.proven import Proven, export_proven
from export.report import ParityReport

CHALLENGER, CHAMPION = "challenger", "champion"
_BATCH, _EXAMPLE_ROWS = 1000, 5
_PREVIOUS = "previous_champion"
_GZIP = b"\x1f\x8b"

logging.getLogger("mlflow").setLevel(logging.WARNING)


class RegistryError(SakerError):
    """A run, a version or an alias is not where it should be."""


@dataclass(frozen=True, slots=True)
class Exported:
    model: onnx.ModelProto
    report: ParityReport
    version: str


def export_run(
    run: str, tracking_uri: str, report: Callable[[str], None] = lambda _: None, *, compare_onnxmltools: bool = False
) -> Exported:
    """Convert the Booster of `run` (an id, or latest), prove it, and register it as `fraud@challenger`.

    It is proven on the run's newest rows, too. Raises `RegistryError` when there is no such run, `UnsupportedModel`,
    `ParityError` or `ModelRefused` when the model may not serve; nothing is registered then.
    """
    run_id = _run_id(run, tracking_uri)
    report(f"run {run_id}")
    booster = _booster(run_id, tracking_uri)
    contract = Contract.from_json(_artifact(run_id, CONTRACT, tracking_uri).decode())
    newest, _ = labelled_records(run_id, tracking_uri)
    rows = Decoder(contract).decode(newest).matrix
    proven = export_proven(booster, contract, rows, compare_onnxmltools=compare_onnxmltools)
    report(str(proven.report))
    version = _register(proven, rows[:_EXAMPLE_ROWS], run_id, tracking_uri)
    report(f"registered as {MODEL}/{version}, alias {CHALLENGER}")
    return Exported(proven.model, proven.report, version)


def _run_id(run: str, tracking_uri: str) -> str:
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


def _artifact(run_id: str, name: str, tracking_uri: str) -> bytes:
    try:
        return Path(download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=tracking_uri)).read_bytes()
    except (MlflowException, OSError) as error:
        raise RegistryError(f"run {run_id} has no artifact {name}; was it made by `saker train`? ({error})") from error


def _register(proven: Proven, rows: NDArray[np.float32], run_id: str, tracking_uri: str) -> str:
    """A version with signature and input example, so that mlflow's own tools can serve it; proof and card beside it."""
    session = proven.session
    # float64 columns: mlflow refuses to narrow what it is given, and its onnx flavour casts to float32 itself.
    example = pd.DataFrame(rows.astype(np.float64), columns=[feature.name for feature in session.contract.features])
    scores = session.score(rows)
    outputs = pd.DataFrame({"score": scores, "raw": scores})  # a signature holds names and types, which are right
    # A folder of its own: a run that is exported again must not write over the file of a version.
    digest = hashlib.sha256(proven.data).hexdigest()
    artifact = f"model-{digest[:12]}"
    # Through the client alone: mlflow's log_model needs set_tracking_uri, which changes the process's environment.
    client = MlflowClient(tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        mlflow.onnx.save_model(
            proven.model,
            path,
            save_as_external_data=False,
            signature=infer_signature(example, outputs),
            input_example=example,
            # Named, or mlflow finds them out by loading the model in a process of its own.
            pip_requirements=[f"onnxruntime=={importlib.metadata.version('onnxruntime')}"],
        )
        (path / "parity.json").write_text(proven.report.to_json())
        (path / "model-card.md").write_text(proven.card)
        client.log_artifacts(run_id, str(path), artifact)
    with contextlib.suppress(MlflowException):  # it exists; if something else is wrong the next call says so
        client.create_registered_model(MODEL)
    tags = {registry.SHA256_TAG: digest, "parity": str(proven.report)}
    created = client.create_model_version(MODEL, f"runs:/{run_id}/{artifact}", run_id, tags=tags, description=proven.card)
    client.set_registered_model_alias(MODEL, CHALLENGER, created.version)
    return str(created.version)


def booster_of(version: Any, tracking_uri: str) -> lightgbm.Booster:
    """The Booster that a registered version (mlflow ModelVersion) was made of; raises `RegistryError` when it is gone."""
    return _booster(version.run_id, tracking_uri)


def _booster(run_id: str, tracking_uri: str) -> lightgbm.Booster:
    return lightgbm.Booster(model_str=_artifact(run_id, BOOSTER, tracking_uri).decode())


def newest_rows(tracking_uri: str) -> tuple[list[bytes], list[int]]:
    """The newest labelled records of the challenger's own run, which it was not trained on."""
    return labelled_records(registry.find_version(f"{MODEL}@{CHALLENGER}", tracking_uri).run_id, tracking_uri)


def labelled_records(run_id: str, tracking_uri: str) -> tuple[list[bytes], list[int]]:
    """The newest rows of a training run, which its model was not trained on: raw records and labels."""
    data = _artifact(run_id, NEWEST, tracking_uri)
    # MLflow stores a .gz in S3 as a plain file with Content-Encoding, so through its server it arrives unpacked.
    lines = (gzip.decompress(data) if data.startswith(_GZIP) else data).splitlines()
    pairs = [line.split(b"\t", 1) for line in lines]
    return [record for _, record in pairs], [int(label) for label, _ in pairs]


def candidates(tracking_uri: str) -> tuple[Any, Any | None]:
    """The versions (mlflow ModelVersion) that are challenger and champion; None where there is no champion yet."""
    challenger = registry.find_version(f"{MODEL}@{CHALLENGER}", tracking_uri)
    current = MlflowClient(tracking_uri).get_registered_model(MODEL).aliases.get(CHAMPION)
    champion = None if current is None else registry.find_version(f"{MODEL}/{current}", tracking_uri)
    return challenger, champion


def time_column(version: Any, tracking_uri: str) -> str:
    """The field of a record that holds its time, as the version's training run says."""
    return str(MlflowClient(tracking_uri).get_run(version.run_id).data.params["time"])


def score_rows(version: Any, records: list[bytes], tracking_uri: str) -> tuple[Contract, NDArray[np.float64], bool]:
    """The version's contract; scores (n,) by the session that serves, NaN for a rejected record; whether its proof is clean."""
    data = registry.fetch(version, tracking_uri).path.read_bytes()
    session = open_session(data)
    decoder = Decoder(session.contract)
    scores = np.full(len(records), np.nan)
    for start in range(0, len(records), _BATCH):
        decoded = decoder.decode(records[start : start + _BATCH])
        scores[start + decoded.indices] = session.score(decoded.matrix)
    proof = read_metadata(data).get(PARITY_KEY)
    return session.contract, scores, proof is not None and json.loads(proof)["passed"] is True


def settle(version: Any, *, promoted: bool, why: str, files: Mapping[str, bytes], tracking_uri: str) -> None:
    """Write a decision down, in tags and with its files in the run of the version; move alias `champion` if it is promoted."""
    client = MlflowClient(tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        client.log_artifacts(version.run_id, folder, "promotion")
    client.set_model_version_tag(MODEL, version.version, "promoted", str(promoted).lower())
    client.set_model_version_tag(MODEL, version.version, "promotion", why)
    if promoted:
        _make_champion(client, str(version.version))


def tag(version: str, name: str, value: str, tracking_uri: str) -> None:
    """Write a tag of a version, such as fraud/7."""
    model, _, number = version.rpartition("/")
    MlflowClient(tracking_uri).set_model_version_tag(model, number, name, value)


def _make_champion(client: MlflowClient, version: str) -> None:
    current = client.get_registered_model(MODEL).aliases.get(CHAMPION)
    if current is not None:
        client.set_registered_model_tag(MODEL, _PREVIOUS, str(current))
    client.set_registered_model_alias(MODEL, CHAMPION, version)


def roll_back(to: str | None, tracking_uri: str) -> tuple[str, str]:
    """Make version `to` champion, or without it the one that was champion before; returns the old and the new version.

    Raises `RegistryError` where there is nothing to go back to.
    """
    client = MlflowClient(tracking_uri)
    try:
        found = client.get_registered_model(MODEL)
    except MlflowException as error:
        raise RegistryError(f"no model {MODEL} in the registry at {tracking_uri}: {error.message}") from error
    current, target = found.aliases.get(CHAMPION), to or found.tags.get(_PREVIOUS)
    if target is None:
        raise RegistryError(f"no champion of {MODEL} was ever replaced, so there is none to go back to; give --to VERSION")
    registry.find_version(f"{MODEL}/{target}", tracking_uri)
    if str(current) == str(target):
        raise RegistryError(f"{MODEL}/{target} is the champion already; give --to VERSION for another one")
    _make_champion(client, str(target))
    return str(current), str(target)


def versions(tracking_uri: str) -> list[dict[str, str]]:
    """What is registered, newest first: version, aliases, created (ISO), run, promotion, parity, sha256, description."""
    client = MlflowClient(tracking_uri)
    try:
        aliases = client.get_registered_model(MODEL).aliases
    except MlflowException as error:
        raise RegistryError(f"no model {MODEL} in the registry at {tracking_uri}: {error.message}") from error
    named: dict[str, list[str]] = {}
    for alias, version in aliases.items():
        named.setdefault(str(version), []).append(alias)
    found = client.search_model_versions(f"name='{MODEL}'")
    return [
        {
            "version": str(version.version),
            "aliases": ", ".join(sorted(named.get(str(version.version), []))),
            "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            "run": version.run_id,
            "promotion": version.tags.get("promotion", ""),
            "parity": version.tags.get("parity", ""),
            "sha256": version.tags.get(registry.SHA256_TAG, ""),
            "description": version.description or "",
        }
        for version in sorted(found, key=lambda version: -int(version.version))
    ]
