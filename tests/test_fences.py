"""Who may import whom, and what a hot process may carry."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import saker

ROOT = Path(__file__).parents[1]
#: Which packages each package may import.
ALLOWED: dict[str, set[str]] = {
    "engine": set(),
    "training": {"engine"},
    "export": {"engine"},
    "deploy": {"engine"},
    "bench": {"commands", "deploy", "engine", "export", "training"},
    "dags": set(),
    "commands": {"deploy", "engine", "export", "training"},
    "saker": {"commands", "engine", "export", "training"},
}
#: The rooms of the engine from the ground up: a room may import itself and the rooms before it.
ENGINE = (
    (
        "apart",
        "config",
        "contract",
        "errors",
        "field_tree",
        "log",
        "onnx_metadata",
        "onnx_trees",
        "paths",
        "properties",
        "protobuf",
        "velocity",
    ),
    ("kernels",),
    ("records",),
    ("history",),
    ("schema_registry",),
    ("model",),
    ("metrics",),
    ("pipeline",),
    ("kafka",),
    ("delivery",),
    ("serving",),
)
#: Modules of the engine that training and export may use.
SHARED = {
    "apart",
    "config",
    "contract",
    "errors",
    "history.table_history",
    "onnx_metadata",
    "onnx_trees",
    "paths",
    "records.content",
    "records.decode",
    "records.encode",
    "records.formats",
    "records.proto_messages",
    "records.proto_text",
    "records.reference_decoder",
    "records.schema_fields",
    "model.session",
    "model.registry",
    "velocity",
}
#: Libraries that only one part may import.
HOMES = {
    "lightgbm": ("training/", "export/", "bench/", "commands/demo.py"),
    "mlflow": ("training/track.py", "export/registry/", "engine/model/registry.py", "engine/model/download.py", "bench/peers/"),
    "onnxruntime": ("engine/model/session.py", "export/proof/leaf_probe.py", "bench/"),  # there as a peer
    "confluent_kafka": ("engine/kafka/", "bench/peers/"),  # there as a peer
    "pandas": ("training/", "export/registry/publish.py", "commands/evidently.py", "bench/peers/"),
    "airflow": ("dags/",),
    "urllib3": ("engine/schema_registry.py",),
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(name: str) -> int:
    return next(level for level, rooms in enumerate(ENGINE) if name in rooms)


MODULES = [path for package in ALLOWED for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package, *inside = path.relative_to(ROOT).with_suffix("").parts
    for name in imports(path):
        head, *rest = name.split(".")
        assert head not in ALLOWED.keys() - {"saker"}, f"{name}: it is installed as saker.{name}"
        if head in HOMES:
            assert str(path.relative_to(ROOT)).startswith(HOMES[head]), f"{head} is imported outside {HOMES[head]}"
        if head != "saker" or not rest:
            continue
        other, *what = rest
        if other in ALLOWED.keys() - {package}:
            assert other in ALLOWED[package] or inside[0] == "bench", f"{package} may not import {name}"
            if package in ("training", "export") and what:
                dotted = ".".join(what)
                assert any(f"{dotted}.".startswith(f"{one}.") or one.startswith(f"{dotted}.") for one in SHARED), name
        if package == other == "engine" and what and inside[0] != "__init__":
            assert room_of(what[0]) <= room_of(inside[0]), f"engine/{inside[0]} may not import {name}"


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_worker_is_light() -> None:
    loaded = loaded_by("import saker.engine.serving.worker")
    assert {"onnxruntime", "orjson", "confluent_kafka"} <= loaded
    assert not loaded & {"mlflow", "pandas", "sklearn", "lightgbm", "airflow", "onnx", "matplotlib", "scipy"}


def test_a_contract_is_read_with_the_standard_library() -> None:
    assert not loaded_by("import saker.engine.contract") & {"numpy", "onnxruntime", "onnx", "orjson"}


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_by("import saker.cli") & {"numpy", "onnxruntime", "confluent_kafka", "mlflow", "pandas", "rich"}


def test_importing_saker_loads_nothing() -> None:
    assert not loaded_by("import saker") & {"numpy", "onnxruntime", "confluent_kafka", "lightgbm", "mlflow", "pandas", "typer"}


def test_the_public_interface_is_there() -> None:
    assert {name for name in saker.__all__ if getattr(saker, name) is not None} == set(saker.__all__) <= set(dir(saker))
