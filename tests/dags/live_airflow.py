"""The DAGs in a real Airflow, over REST, with a real MLflow: `make test-airflow` (four minutes, so not part of `make test`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mlflow.tracking import MlflowClient

from saker.deploy.local.airflow import Airflow, local_airflow
from saker.deploy.local.tracking import Tracking
from tests.support.airflow import BINARY, DAGS, task_environment

RETRAIN = "retrain_fraud_model"
SMALL = {"window_days": 2, "rounds": 40}


@pytest.fixture(scope="module")
def tracking_uri() -> Iterator[str]:
    tracking = Tracking()
    try:
        tracking.launch()
        tracking.wait()
        yield tracking.uri
    finally:
        tracking.stop()


@pytest.fixture(scope="module")
def airflow(tracking_uri: str) -> Iterator[Airflow]:
    with local_airflow(BINARY, DAGS, task_environment(tracking_uri)) as running:
        yield running


def champion(tracking_uri: str) -> str:
    return str(MlflowClient(tracking_uri).get_model_version_by_alias("fraud", "champion").version)


def test_the_dags_parse_without_errors_or_warnings(airflow: Airflow) -> None:
    assert airflow.ask("GET", "/api/v2/importErrors")["total_entries"] == 0
    assert airflow.ask("GET", "/api/v2/dagWarnings")["total_entries"] == 0
    dags = {dag["dag_id"]: dag for dag in airflow.ask("GET", "/api/v2/dags")["dags"]}
    assert set(dags) == {RETRAIN, "rollback_fraud_model"}
    assert dags[RETRAIN]["max_active_runs"] == 1
    tasks = {t["task_id"]: t["downstream_task_ids"] for t in airflow.ask("GET", f"/api/v2/dags/{RETRAIN}/tasks")["tasks"]}
    assert tasks == {
        "retrain_model": ["export_model"],
        "export_model": ["check_latency"],
        "check_latency": ["promote_if_better"],
        "promote_if_better": [],
        "report_drift": [],
    }


def test_the_first_run_makes_a_champion(airflow: Airflow, tracking_uri: str) -> None:
    run, state = airflow.run(RETRAIN, SMALL, "2026-01-10T00:00:00Z")
    assert state == "success", airflow.tasks(RETRAIN, run)
    assert champion(tracking_uri) == "1"
    assert airflow.returned(RETRAIN, run, "export_model")["version"] == "1"
    assert "0 wrong leaves" in airflow.log(RETRAIN, run, "export_model")
    assert "transactions" in airflow.log(RETRAIN, run, "retrain_model")


def test_a_worse_challenger_ends_green_and_moves_nothing(airflow: Airflow, tracking_uri: str) -> None:
    run, state = airflow.run(RETRAIN, {**SMALL, "rounds": 1}, "2026-01-11T00:00:00Z")
    assert state == "success", airflow.tasks(RETRAIN, run)
    told = airflow.returned(RETRAIN, run, "promote_if_better")
    assert told["promoted"] is False
    assert told["why"].startswith("fraud/2 stays challenger: ROC AUC")
    assert champion(tracking_uri) == "1"


def test_a_slow_model_ends_red_at_its_check(airflow: Airflow, tracking_uri: str) -> None:
    run, state = airflow.run(RETRAIN, {**SMALL, "latency_budget_us": 0.01}, "2026-01-12T00:00:00Z")
    assert state == "failed"
    tasks = airflow.tasks(RETRAIN, run)
    assert (tasks["export_model"], tasks["check_latency"]) == ("success", "failed")
    assert tasks["promote_if_better"] == "upstream_failed"
    assert "fraud/3 takes" in airflow.log(RETRAIN, run, "check_latency")
    assert champion(tracking_uri) == "1"


def test_the_same_interval_gives_the_same_model_and_rollback_goes_back(airflow: Airflow, tracking_uri: str) -> None:
    run, state = airflow.run(RETRAIN, {**SMALL, "margin": -1}, "2026-01-10T12:00:00Z")
    assert state == "success", airflow.tasks(RETRAIN, run)
    assert champion(tracking_uri) == "4"
    run, state = airflow.run("rollback_fraud_model", {})
    assert state == "success"
    assert airflow.returned("rollback_fraud_model", run, "roll_back") == {"from": "4", "to": "1"}
    assert champion(tracking_uri) == "1"
    run, state = airflow.run("rollback_fraud_model", {"version": "99"})
    assert state == "failed"
    assert "no model fraud/99" in airflow.log("rollback_fraud_model", run, "roll_back")
    assert champion(tracking_uri) == "1"
