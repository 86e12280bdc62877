"""Results as JSON, with everything that one needs to run them again: machine, versions, commit, command."""

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


def surroundings() -> dict[str, Any]:
    """Where and with what this process runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processors = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": next(processors, platform.machine()),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
        },
        "versions": versions,
        "commit": commit.stdout.strip(),
        "command": shlex.join(["saker", *sys.argv[1:]]),
    }


def write(path: Path, kind: str, runs: Iterable[Run], **more: Any) -> None:
    """kind: e2e or peers. more: what belongs to the kind, as plain data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"kind": kind, **surroundings(), **more, "runs": [asdict(run) for run in runs]}
    path.write_text(json.dumps(told, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, Any], list[Run]]:
    told = json.loads(path.read_text())
    return told, [Run(**run) for run in told.pop("runs")]
