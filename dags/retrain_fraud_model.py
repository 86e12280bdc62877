"""Daily: train on the newest window, export with proof, check the latency, promote if better; report drift in parallel.

    retrain_model >> export_model >> check_latency >> promote_if_better
    report_drift

Each task calls the `saker` command in a separate environment and returns its JSON. The data interval selects the training
window, so a run of a past day can be repeated. Environment: SAKER_BIN (the command, by default `saker` on the path),
MLFLOW_TRACKING_URI, SAKER_BOOTSTRAP_SERVERS for report_drift, and SAKER_RETRAIN_SCHEDULE for another schedule than @daily
(empty: by hand only).
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

_log = logging.getLogger("airflow.task")


def saker(*arguments: object) -> Any:
    """The JSON that a saker command prints; its progress goes to the task's log line by line.

    What saker itself refuses (one line, "saker: ...") a second try does not mend; anything else is tried again.
    """
    command = [os.environ.get("SAKER_BIN", "saker"), *map(str, arguments), "--json"]
    _log.info("$ %s", shlex.join(command))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        reason = ""
        for line in process.stderr:
            _log.info(line.rstrip())
            reason = line.rstrip() if line.startswith("saker: ") else reason
        answer = process.stdout.read()
    if process.returncode and reason:
        raise AirflowFailException(reason)
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with exit code {process.returncode}")
    return json.loads(answer.splitlines()[-1])


@dag(
    dag_id="retrain_fraud_model",
    schedule=os.environ.get("SAKER_RETRAIN_SCHEDULE", "@daily") or None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["fraud", "saker"],
    doc_md=__doc__,
    params={
        "data": Param("", type="string", title="Data", description="CSV file, or folder with the IEEE-CIS files."),
        "window_days": Param(
            28, type="number", exclusiveMinimum=0, title="Window", description="Days up to the interval's end."
        ),
        "reference_date": Param(
            "2025-12-01",
            type="string",
            format="date",
            title="Reference date",
            description="The day from which the data counts its seconds (TransactionDT).",
        ),
        "rounds": Param(300, type="integer", minimum=1, title="Rounds", description="Trees at most; training stops early."),
        "seed": Param(0, type="integer", title="Seed"),
        "latency_budget_us": Param(
            25.0, type="number", title="Latency budget", description="CPU microseconds a record, batches of 256."
        ),
        "latency_ratio": Param(2.0, type="number", title="Latency ratio", description="At most so many times the champion's."),
        "margin": Param(0.0, type="number", title="Margin", description="ROC AUC to be gained, the whole interval above it."),
        "floor": Param(0.7, type="number", minimum=0, maximum=1, title="Floor", description="ROC AUC for a first champion."),
        "drift_limit": Param(0.25, type="number", title="Drift limit", description="PSI above which report_drift fails."),
    },
)
def retrain_fraud_model() -> None:
    @task
    def retrain_model() -> dict[str, Any]:
        context = get_current_context()
        params = context["params"]
        end = context.get("data_interval_end") or context["dag_run"].run_after
        seconds = (end - datetime.fromisoformat(params["reference_date"]).replace(tzinfo=UTC)).total_seconds()
        window = ["--from", seconds - params["window_days"] * 86_400, "--until", seconds]
        data = ["--data", params["data"]] if params["data"] else []
        return saker("train", *data, *window, "--rounds", params["rounds"], "--seed", params["seed"])

    @task
    def export_model(trained: dict[str, Any]) -> dict[str, Any]:
        return saker("export", "--run", trained["run"])

    @task
    def check_latency(exported: dict[str, Any]) -> dict[str, Any]:
        params = get_current_context()["params"]
        budget = ["--budget-us", params["latency_budget_us"], "--budget-ratio", params["latency_ratio"]]
        reference = f"fraud/{exported['version']}"
        return saker("bench", "pipeline", reference, "--against", "fraud@champion", *budget, "--batch", 256)

    @task
    def promote_if_better(_checked: dict[str, Any]) -> dict[str, Any]:
        params = get_current_context()["params"]
        return saker("promote", "--margin", params["margin"], "--floor", params["floor"])

    @task
    def report_drift() -> dict[str, Any]:
        servers = os.environ.get("SAKER_BOOTSTRAP_SERVERS")
        if not servers:
            raise AirflowSkipException("SAKER_BOOTSTRAP_SERVERS is not set: there is no live traffic to compare")
        limit = get_current_context()["params"]["drift_limit"]
        return saker("drift", "--bootstrap-servers", servers, "--limit", limit)

    promote_if_better(check_latency(export_model(retrain_model())))
    report_drift()


retrain_fraud_model()
