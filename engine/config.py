"""Names that more than one package must agree on."""

from __future__ import annotations

import os

#: The MLflow experiment and registered model that commands use when they are told no other.
EXPERIMENT = MODEL = "fraud"

#: Artifacts of a training run.
BOOSTER, CONTRACT, NEWEST = "booster.txt", "contract.json", "newest.tsv.gz"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
