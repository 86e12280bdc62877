"""The README's commands, run as they stand: real card transactions through the whole line, over a real Kafka."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pytest
from mlflow.tracking import MlflowClient

from saker.deploy.local.stack import REJECTED, SCORED
from saker.engine.contract import Contract
from saker.training.tables import read_csv, to_records
from tests.support.scores import expected_scores

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ULB = ROOT / "tests" / "data" / "ulb_creditcard_sample.csv"


def block(language: str, number: int = 0) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return blocks[number]


def shell(line: str, folder: Path, uri: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line.split(),
        cwd=folder,
        env={**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, tracking_uri: str) -> Path:
    assert str(tmp_path) in tracking_uri
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return tmp_path


def test_the_line_by_hand(folder: Path, bootstrap_servers: str, read: Any) -> None:
    lines = block("sh").replace("localhost:9092", bootstrap_servers).splitlines()
    uri = f"sqlite:///{folder}/mlflow.db"
    assert lines[0].startswith("export MLFLOW_TRACKING_URI=")
    serving: subprocess.Popen[str] | None = None
    outputs: dict[str, str] = {}
    try:
        for line in lines[1:]:
            if line.endswith("&"):
                serving = start(line.removesuffix("&"), folder, uri)
            else:
                outputs[line.split()[1]] = shell(line, folder, uri)
        messages = read(SCORED, 3265)
    finally:
        if serving:
            serving.send_signal(signal.SIGTERM)
            serving.communicate(timeout=60)
    assert serving
    assert serving.returncode == 0
    assert "sent 3265, acknowledged 3265" in outputs["replay"]
    assert "fraud/1 is the first champion" in outputs["promote"]
    assert "0 wrong leaves" in outputs["export"]
    assert "OK: " in outputs["verify"]
    assert "again by model and Booster" in outputs["verify"]
    assert read(REJECTED, 0) == []
    files = "verify --records tests/data/ulb_creditcard_sample.csv --scores scores.jsonl --model fraud.onnx"
    assert "OK: 3,265 scores" in shell(f"saker {files} --label Class --id ID --report found.json", folder, uri)
    assert orjson.loads((folder / "found.json").read_bytes())["passed"] is True

    # The scores that came back are LightGBM's, from the Booster that the run logged.
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("fraud").experiment_id])
    assert {"roc_auc", "pr_auc", "recall_at_1pct_fpr"} <= run.data.metrics.keys()
    assert run.data.tags["data_sha256"]
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"booster.txt", "contract.json", "plots.png"} <= artifacts
    booster = lightgbm.Booster(model_file=client.download_artifacts(run.info.run_id, "booster.txt"))
    contract = Contract.from_json(Path(client.download_artifacts(run.info.run_id, "contract.json")).read_text())
    assert contract.provenance.run_id == run.info.run_id
    records = to_records(read_csv(ULB, "ID").drop(columns=["Class"]))
    expected = list(expected_scores(booster, contract, records).values())
    answers = [orjson.loads(message.value) for message in messages]
    streamed = {answer["ID"]: answer["fraud_score"] for answer in answers}
    assert len(answers) == len(streamed) == 3265
    np.testing.assert_allclose([streamed[i] for i in range(3265)], expected, rtol=1e-15)
    assert {answer["model"] for answer in answers} == {"fraud/1"}

    filed = [orjson.loads(line) for line in (folder / "scores.jsonl").read_bytes().splitlines()]
    np.testing.assert_allclose([answer["fraud_score"] for answer in filed], expected, rtol=1e-15)


def test_any_lightgbm_model(folder: Path, bootstrap_servers: str) -> None:
    export, score, serve = block("sh", 1).replace("localhost:9092", bootstrap_servers).splitlines()
    assert "OK: LightGBM" in shell(export, folder, "")
    assert "scored 6, rejected 0" in shell(score, folder, "")
    serving = start(serve.removesuffix("&"), folder, "")
    serving.send_signal(signal.SIGTERM)
    serving.communicate(timeout=60)
    assert serving.returncode == 0

    booster = lightgbm.Booster(model_file=folder / "tests" / "export" / "data" / "3.3.5_binary.txt")
    records = [
        orjson.loads(line) for line in (folder / "tests" / "export" / "data" / "records.jsonl").read_bytes().splitlines()
    ]
    rows = np.array([[record[name] for name in booster.feature_name()] for record in records], np.float32)
    answers = [orjson.loads(line) for line in (folder / "other-scores.jsonl").read_bytes().splitlines()]
    np.testing.assert_allclose([a["fraud_score"] for a in answers], booster.predict(rows), rtol=1e-15)
    assert [a["is_fraud"] for a in answers] == (booster.predict(rows) >= 0.3).tolist()


def start(line: str, folder: Path, uri: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *line.split(), "--metrics-port", "0"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert next(line for line in process.stderr if "ready: every partition" in line)
    return process


def test_the_library_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "invalid_json" in done.stdout
