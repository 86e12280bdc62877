"""A training run in MLflow: parameters, figures, plots, the Booster and its contract."""

from __future__ import annotations

import gzip
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from saker.engine.config import BOOSTER, CONTRACT, EXPERIMENT, NEWEST
from saker.training.evaluate import plots
from saker.training.fit import Settings, Trained

_NEWEST_ROWS = 5_000

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it logs every new SQLite file


def log_run(trained: Trained, settings: Settings, source: Mapping[str, object], tracking_uri: str) -> str:
    """Log a training and return the run's id; the logged contract names the run."""
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    run = client.create_run(experiment_id)
    run_id: str = run.info.run_id
    contract = replace(trained.contract, provenance=replace(trained.contract.provenance, run_id=run_id))
    parameters = {**asdict(settings), **source, "threshold": contract.threshold, "features": len(contract.features)}
    client.log_batch(
        run_id,
        metrics=[mlflow.entities.Metric(name, value, 0, 0) for name, value in trained.metrics.items()],
        params=[mlflow.entities.Param(name, str(value)) for name, value in parameters.items()],
        tags=[mlflow.entities.RunTag("data_sha256", contract.provenance.data_sha256)],
    )
    booster = trained.booster
    importance = dict(zip(booster.feature_name(), booster.feature_importance("gain").tolist(), strict=True))
    newest = list(zip(trained.labels.tolist(), trained.records, strict=True))[-_NEWEST_ROWS:]
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        (files / BOOSTER).write_text(booster.model_to_string())
        (files / CONTRACT).write_text(contract.to_json())
        (files / "plots.png").write_bytes(plots(trained.labels, trained.scores, importance))
        (files / NEWEST).write_bytes(
            gzip.compress(b"".join(b"%d\t%s\n" % (label, record) for label, record in newest), compresslevel=1),
        )
        client.log_artifacts(run_id, folder)
    client.set_terminated(run_id)
    return run_id
