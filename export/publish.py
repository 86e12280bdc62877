"""From a training run to the registry: convert, prove, register as challenger; promote to champion."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.metadata
import logging
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from sklearn.metrics import roc_auc_score

from engine import registry
from engine.config import BOOSTER, CONTRACT, EXPERIMENT, MODEL, NEWEST
from engine.contract import Contract
from engine.decode import Decoder
from engine.errors import SakerError
from engine.session import open_session
from export.proven import Proven, export_proven
from export.report import ParityReport

CHALLENGER, CHAMPION = "challenger", "champion"
_BATCH, _EXAMPLE_ROWS = 1000, 5

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
    newest, _ = _labelled_records(run_id, tracking_uri)
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
        client.log_artifacts(run_id, str(path), "model")
    with contextlib.suppress(MlflowException):  # it exists; if something else is wrong the next call says so
        client.create_registered_model(MODEL)
    tags = {registry.SHA256_TAG: hashlib.sha256(proven.data).hexdigest(), "parity": str(proven.report)}
    created = client.create_model_version(MODEL, f"runs:/{run_id}/model", run_id, tags=tags, description=proven.card)
    client.set_registered_model_alias(MODEL, CHALLENGER, created.version)
    return str(created.version)


def booster_of(version: Any, tracking_uri: str) -> lightgbm.Booster:
    """The Booster that a registered version (mlflow ModelVersion) was made of; raises `RegistryError` when it is gone."""
    return _booster(version.run_id, tracking_uri)


def _booster(run_id: str, tracking_uri: str) -> lightgbm.Booster:
    return lightgbm.Booster(model_str=_artifact(run_id, BOOSTER, tracking_uri).decode())


def newest_rows(tracking_uri: str) -> tuple[list[bytes], list[int]]:
    """The newest labelled records of the challenger's own run, which it was not trained on."""
    return _labelled_records(registry.find_version(f"{MODEL}@{CHALLENGER}", tracking_uri).run_id, tracking_uri)


def _labelled_records(run_id: str, tracking_uri: str) -> tuple[list[bytes], list[int]]:
    lines = gzip.decompress(_artifact(run_id, NEWEST, tracking_uri)).splitlines()
    pairs = [line.split(b"\t", 1) for line in lines]
    return [record for _, record in pairs], [int(label) for label, _ in pairs]


def promote(records: list[bytes], labels: Iterable[int], tracking_uri: str) -> tuple[bool, str]:
    """Move alias `champion` to the challenger when its ROC AUC on these rows is better; the first one always.

    Returns whether it moved, and why.
    """
    client = MlflowClient(tracking_uri)
    challenger = registry.find_version(f"{MODEL}@{CHALLENGER}", tracking_uri)
    name = f"{MODEL}/{challenger.version}"
    truth = np.fromiter(labels, np.int64)
    auc = _auc(challenger, records, truth, tracking_uri)
    current = client.get_registered_model(MODEL).aliases.get(CHAMPION)
    if current is None:
        why = f"{name} is the first champion (ROC AUC {auc:.4f} on {len(truth):,} rows)"
    elif str(current) == str(challenger.version):
        return False, f"{name} is the champion already (ROC AUC {auc:.4f} on {len(truth):,} rows)"
    else:
        other = _auc(registry.find_version(f"{MODEL}/{current}", tracking_uri), records, truth, tracking_uri)
        compared = f"ROC AUC {auc:.4f} against {other:.4f} of {MODEL}/{current} on {len(truth):,} rows"
        if auc <= other:
            return False, f"{name} stays challenger: {compared}"
        why = f"{name} is the new champion: {compared}"
    client.set_registered_model_alias(MODEL, CHAMPION, challenger.version)
    return True, why


def _auc(version: Any, records: list[bytes], labels: np.ndarray[Any, np.dtype[np.int64]], tracking_uri: str) -> float:
    session = open_session(registry.fetch(version, tracking_uri).path)
    decoder = Decoder(session.contract)
    scores = np.full(len(records), np.nan)
    for start in range(0, len(records), _BATCH):
        decoded = decoder.decode(records[start : start + _BATCH])
        scores[start + decoded.indices] = session.score(decoded.matrix)
    scored = ~np.isnan(scores)
    if len(set(labels[scored].tolist())) != 2:  # noqa: PLR2004 - both labels
        raise RegistryError(
            f"{version.name}/{version.version} scores {scored.sum():,} of these {len(records):,} rows; "
            "a ROC AUC needs both labels among them",
        )
    return float(roc_auc_score(labels[scored], scores[scored]))
