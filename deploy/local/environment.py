"""Environments for packages that conflict with saker's, created once from locked requirements and cached for the user."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import uv
from filelock import FileLock

from saker.engine.config import cache
from saker.engine.errors import SakerError


class EnvironmentFailed(SakerError):
    """The packages of an environment could not be installed; the message ends with the output of the installer."""


def python_of(requirements: Path) -> Path:
    """The Python of an environment with these locked requirements (with hashes)."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache("environments") / f"{requirements.stem}-{digest}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        with FileLock(f"{folder}.lock"):  # another process may want the same one
            if not ready.exists():
                _make(folder, python, requirements)
                ready.touch()
    return python


def _make(folder: Path, python: Path, requirements: Path) -> None:
    _run([uv.find_uv_bin(), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], requirements)
    install = [uv.find_uv_bin(), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "--require-hashes"]
    _run([*install, "-r", str(requirements)], requirements)


def run_in(requirements: Path, script: Path, *arguments: object) -> None:
    """Run a script in such an environment; raises `EnvironmentFailed` with its output if it fails."""
    _run([str(python_of(requirements)), str(script), *map(str, arguments)], requirements, cwd=tempfile.gettempdir())


def _run(command: list[str], requirements: Path, cwd: str | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailed(
            f"{requirements.stem}: {' '.join(command[:5])} ... failed:\n{(done.stderr or done.stdout)[-2000:]}"
        )
