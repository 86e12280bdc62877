"""By hand: make an earlier version of the fraud model champion again. Environment: SAKER_BIN, MLFLOW_TRACKING_URI."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

_log = logging.getLogger("airflow.task")


@dag(
    dag_id="rollback_fraud_model",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["fraud", "saker"],
    doc_md=__doc__,
    params={"version": Param("", type="string", title="Version", description="Empty: the champion before this one.")},
)
def rollback_fraud_model() -> None:
    @task
    def roll_back() -> dict[str, Any]:
        version = get_current_context()["params"]["version"]
        command = [
            os.environ.get("SAKER_BIN", "saker"),
            "models",
            "rollback",
            "--json",
            *(["--to", version] if version else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        _log.info(done.stderr.rstrip())
        if done.returncode:
            raise AirflowFailException(done.stderr.strip() or f"saker ended with exit code {done.returncode}")
        return json.loads(done.stdout)

    roll_back()


rollback_fraud_model()
