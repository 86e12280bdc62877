"""Who may import whom, and what a hot process may carry."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"engine", "export", "training", "bench", "deploy", "dags", "commands"}
ALLOWED = {
    "engine": set(),
    "training": {"engine"},
    "export": {"engine"},
    "deploy": {"engine"},
    "bench": PACKAGES,
    "dags": set(),
    "commands": PACKAGES,
}
#: Modules of the engine that training and export may use.
SHARED = {"contract", "decode", "session", "errors", "config", "registry"}
#: Libraries that only one part may import.
HOMES = {
    "lightgbm": ("training/", "export/", "bench/"),
    "mlflow": ("training/track.py", "export/publish.py", "engine/registry.py", "bench/peers/"),
    "onnxruntime": ("engine/session.py", "export/probe.py", "bench/"),  # there as a peer
    "confluent_kafka": ("engine/kafka.py", "bench/peers/"),  # there as a peer
    "pandas": ("training/", "export/publish.py", "commands/evidently.py", "bench/peers/"),
    "airflow": ("dags/",),
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


MODULES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        head, *rest = name.split(".")
        if head in PACKAGES - {package}:
            assert head in ALLOWED[package], f"{package} may not import {name}"
            if package in ("training", "export") and rest:
                assert rest[0] in SHARED, f"{package} may not import {name}"
        if head in HOMES:
            assert str(path.relative_to(ROOT)).startswith(HOMES[head]), f"{head} is imported outside {HOMES[head]}"


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_worker_is_light() -> None:
    loaded = loaded_by("import engine.worker")
    assert {"onnxruntime", "orjson", "confluent_kafka"} <= loaded
    assert not loaded & {"mlflow", "pandas", "sklearn", "lightgbm", "airflow", "onnx", "matplotlib", "scipy"}


def test_a_contract_is_read_with_the_standard_library() -> None:
    assert not loaded_by("import engine.contract") & {"numpy", "onnxruntime", "onnx", "orjson"}


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_by("import saker") & {"numpy", "onnxruntime", "confluent_kafka", "mlflow", "pandas", "rich"}
