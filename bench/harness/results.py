"""Results as JSON, with all that is needed to repeat them: machine, versions, commit, command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saker.bench.harness.e2e import Run

FOLDER = Path("bench") / "results"
_PACKAGES = ("confluent-kafka", "lightgbm", "numpy", "onnxruntime", "orjson", "saker-onnx")


def about(kind: str, command: str | None = None) -> dict[str, Any]:
    """The head of a results file: kind, date, machine, versions, commit and command (default: this process's)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processors = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "kind": kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": next(processors, platform.machine()),
            "cores": os.cpu_count(),  # not those that a benchmark has pinned itself to
            "kernel": platform.release(),
        },
        "versions": versions,
        "commit": commit.stdout.strip(),
        "command": command or shlex.join(["saker", *sys.argv[1:]]),
    }


def write(path: Path, kind: str, runs: Iterable[Run], **more: Any) -> None:
    """Write the runs of `kind` (e2e or peers). more: further entries of the file, as plain data."""
    write_plain(path, kind, **more, runs=[asdict(run) for run in runs])


def write_plain(path: Path, kind: str, **entries: Any) -> None:
    """Write plain data below the head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about(kind), **entries}, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, Any], list[Run]]:
    told = json.loads(path.read_text())
    return told, [Run(**run) for run in told.pop("runs")]
