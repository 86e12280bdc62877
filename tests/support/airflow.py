"""Where the tests find Airflow: an environment of its own, made by make."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DAGS = ROOT / "dags"
BINARY = ROOT / ".venv-airflow" / "bin" / "airflow"


def task_environment(tracking_uri: str) -> dict[str, str]:
    """What the tasks of the DAGs are told; without a schedule, so that nothing runs that a test did not start."""
    saker = str(Path(sys.executable).with_name("saker"))
    return {
        "SAKER_BIN": saker,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "SAKER_RETRAIN_SCHEDULE": "",
        "HOME": os.environ["HOME"],
    }
