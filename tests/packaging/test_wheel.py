"""The wheel, installed into an environment of its own with what the serving image has, and nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from saker.deploy.local.tracking import Tracking
from saker.export.registry import publish, run_artifacts
from saker.training.fit import Settings, train
from saker.training.tables import read_csv
from saker.training.track import log_run

ROOT = Path(__file__).parents[2]
ULB = ROOT / "tests" / "data" / "ulb_creditcard_sample.csv"
UV = uv.find_uv_bin()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed_saker(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the requirements of the serving image and the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    python = folder / "bin" / "python"
    requirements = str(ROOT / "requirements" / "serve.txt")
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
    install = [UV, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "--require-hashes", "-r", requirements], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    return python


def run(python: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a folder from which nothing of the checkout can be imported."""
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=keep | environment, capture_output=True, text=True, check=False)


def test_saker_is_the_only_name_it_installs(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"saker"}


def test_a_registered_model_is_fetched_and_scores_without_the_packages_of_training(
    installed_saker: Path, tracking_server: Callable[..., Tracking], tmp_path: Path
) -> None:
    settings = Settings(label="Class", time="Time", id_field="ID", rounds=20)
    tracking = tracking_server()
    tracking.wait()
    log_run(train(read_csv(ULB, "ID"), settings), settings, {}, tracking.uri)
    publish.export_run("latest", tracking.uri)
    (tmp_path / "records.jsonl").write_bytes(b"\n".join(run_artifacts.newest_rows(tracking.uri)[0]))
    command = ["-m", "saker", "score", "records.jsonl", "--model", "fraud@challenger", "-o", "scores.jsonl"]
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MLFLOW_TRACKING_URI": tracking.uri}
    done = run(installed_saker, tmp_path, *command, **cache)
    assert done.returncode == 0, done.stderr
    assert "rejected 0 with fraud/1" in done.stdout
    assert len((tmp_path / "scores.jsonl").read_bytes().splitlines()) == len(run_artifacts.newest_rows(tracking.uri)[0])
    packages = {path.name for path in (installed_saker.parents[1]).glob("lib/python*/site-packages/*")}
    assert {"onnxruntime", "mlflow"} <= packages
    assert not {"lightgbm", "pandas", "sklearn", "scipy", "matplotlib", "airflow", "onnx"} & packages


def test_it_brings_its_kernels_and_types(installed_saker: Path, tmp_path: Path) -> None:
    code = "import saker.engine as e, pathlib; from saker.engine.kernels import native; print(native('auto')[0].variants())"
    code += "; print((pathlib.Path(e.__path__[0]) / 'py.typed').exists())"
    done = run(installed_saker, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "baseline" in done.stdout
    assert "True" in done.stdout


def test_its_version_is_that_of_the_metadata(installed_saker: Path, wheel: Path, tmp_path: Path) -> None:
    done = run(installed_saker, tmp_path, "-m", "saker", "--version")
    assert done.returncode == 0, done.stderr
    assert f"saker {wheel.name.split('-')[1]}" in done.stdout
    assert "lightgbm not installed" in done.stdout
    assert {"onnxruntime", "librdkafka", "kernels"} <= {line.partition(" ")[0] for line in done.stdout.splitlines()}
