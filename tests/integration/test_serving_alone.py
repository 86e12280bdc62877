"""What the serving image has (requirements/serve.txt) is enough to serve from the registry, and has nothing of training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saker.deploy.local.environment import python_of
from saker.deploy.local.tracking import Tracking
from saker.export.registry import publish, run_artifacts
from saker.training.fit import Settings, train
from saker.training.tables import read_csv
from saker.training.track import log_run

ROOT = Path(__file__).parents[2]
ULB = ROOT / "tests" / "data" / "ulb_creditcard_sample.csv"


def test_a_registered_model_is_fetched_and_scores_without_the_packages_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(label="Class", time="Time", id_field="ID", rounds=20)
    tracking = Tracking()
    try:
        tracking.launch()
        python = python_of(ROOT / "requirements" / "serve.txt")
        tracking.wait()
        log_run(train(read_csv(ULB, "ID"), settings), settings, {}, tracking.uri)
        publish.export_run("latest", tracking.uri)
        (tmp_path / "records.jsonl").write_bytes(b"\n".join(run_artifacts.newest_rows(tracking.uri)[0]))
        uv, target = str(Path(sys.executable).with_name("uv")), str(tmp_path / "saker")
        install = [uv, "pip", "install", "--python", sys.executable, "--target", target]
        subprocess.run([*install, "--no-deps", "--no-build-isolation", str(ROOT)], check=True, capture_output=True)
        cache = {
            "PYTHONPATH": str(tmp_path / "saker"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "MLFLOW_TRACKING_URI": tracking.uri,
        }
        command = [
            str(python),
            "-m",
            "saker",
            "score",
            "records.jsonl",
            "--model",
            "fraud@challenger",
            "-o",
            "scores.jsonl",
        ]
        done = subprocess.run(command, env={**os.environ, **cache}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "rejected 0 with fraud/1" in done.stdout
        assert len((tmp_path / "scores.jsonl").read_bytes().splitlines()) == len(run_artifacts.newest_rows(tracking.uri)[0])
    finally:
        tracking.stop()
    packages = {path.name for path in (python.parents[1]).glob("lib/python*/site-packages/*")}
    assert {"onnxruntime", "mlflow"} <= packages
    assert not {"lightgbm", "pandas", "sklearn", "scipy", "matplotlib", "airflow", "onnx"} & packages
