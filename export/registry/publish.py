"""From a training run to the registry: convert, prove, register as challenger; promote to champion."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow.onnx
import numpy as np
import onnx
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from saker.engine.config import CONTRACT, MODEL
from saker.engine.contract import Contract
from saker.engine.history.table_history import history_of
from saker.engine.model import registry
from saker.engine.records.decode import Decoder
from saker.export.proof.report import ParityReport
from saker.export.proven_export import Proven, export_proven
from saker.export.registry.model_versions import CHALLENGER
from saker.export.registry.run_artifacts import find_run, labelled_records, load_booster, read_artifact

_EXAMPLE_ROWS = 5


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
    run_id = find_run(run, tracking_uri)
    report(f"run {run_id}")
    booster = load_booster(run_id, tracking_uri)
    contract = Contract.from_json(read_artifact(run_id, CONTRACT, tracking_uri).decode())
    newest, _ = labelled_records(run_id, tracking_uri)
    rows = Decoder(contract, history=history_of(contract)).decode(newest).matrix
    proven = export_proven(booster, contract, rows, compare_onnxmltools=compare_onnxmltools)
    report(str(proven.report))
    version = _register(proven, rows[:_EXAMPLE_ROWS], run_id, tracking_uri)
    report(f"registered as {MODEL}/{version}, alias {CHALLENGER}")
    return Exported(proven.model, proven.report, version)


def _register(proven: Proven, rows: NDArray[np.float32], run_id: str, tracking_uri: str) -> str:
    """A version with signature and input example, so that mlflow's own tools can serve it, and with its proof and card."""
    session = proven.session
    # float64 columns: mlflow refuses to narrow what it is given, and its onnx flavour casts to float32 itself.
    example = pd.DataFrame(rows.astype(np.float64), columns=[feature.name for feature in session.contract.features])
    scores = session.score(rows)
    outputs = pd.DataFrame({"score": scores, "raw": scores})  # a signature holds names and types, which are right
    # A separate folder: exporting a run again must not overwrite the file of a version.
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
            # Named, or mlflow infers them by loading the model in another process.
            pip_requirements=[f"onnxruntime=={importlib.metadata.version('onnxruntime')}"],
        )
        (path / "parity.json").write_text(proven.report.to_json())
        (path / "model-card.md").write_text(proven.card)
        client.log_artifacts(run_id, str(path), artifact)
    with contextlib.suppress(MlflowException):  # it exists; the next call reports any other error
        client.create_registered_model(MODEL)
    tags = {registry.SHA256_TAG: digest, "parity": str(proven.report)}
    created = client.create_model_version(MODEL, f"runs:/{run_id}/{artifact}", run_id, tags=tags, description=proven.card)
    client.set_registered_model_alias(MODEL, CHALLENGER, created.version)
    return str(created.version)
