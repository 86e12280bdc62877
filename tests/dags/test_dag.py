"""The DAG in one process, by Airflow's own `dag.test()`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.support.airflow import DAGS, task_environment

_SCRIPT = """
import datetime, json, sys, warnings
warnings.simplefilter("error", DeprecationWarning)
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
run = bag.dags["retrain_fraud_model"].test(
    run_conf={"window_days": 2, "rounds": 30}, logical_date=datetime.datetime(2026, 1, 20, tzinfo=datetime.timezone.utc)
)
tasks = {task.task_id: [task.state, task.xcom_pull(task_ids=task.task_id)] for task in run.get_task_instances()}
print(json.dumps({"dags": sorted(bag.dags), "state": run.state, "tasks": tasks}))
"""


def test_the_dag_trains_exports_checks_and_promotes(airflow: Path, tracking_uri: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        **task_environment(tracking_uri),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    }
    migrate = subprocess.run([str(airflow), "db", "migrate"], env=environment, capture_output=True, text=True, check=False)
    assert migrate.returncode == 0, migrate.stderr
    command = [str(airflow.with_name("python")), "-c", _SCRIPT, str(DAGS)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["dags"] == ["retrain_fraud_model", "rollback_fraud_model"]
    assert told["state"] == "success"
    states = {name: state for name, (state, _) in told["tasks"].items()}
    assert states == {
        **dict.fromkeys(("retrain_model", "export_model", "check_latency", "promote_if_better"), "success"),
        "report_drift": "skipped",  # there is no broker
    }
    assert told["tasks"]["export_model"][1]["version"] == "1"
    assert told["tasks"]["promote_if_better"][1]["promoted"] is True
