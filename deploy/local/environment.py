"""Environments for what cannot live beside saker, made once from locked requirements and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saker.engine.config import cache
from saker.engine.errors import SakerError


class EnvironmentFailed(SakerError):
    """The packages of an environment could not be installed; the message ends with what the installer said."""


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Keeps other processes that want to make `path` waiting until this one has; look then whether it is there."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with its process, however that ends
        yield


def python_of(requirements: Path) -> Path:
    """The Python of an environment with these locked requirements (with hashes)."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache("environments") / f"{requirements.stem}-{digest}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        with alone_with(folder):
            if not ready.exists():
                _make(folder, python, requirements)
                ready.touch()
    return python


def _make(folder: Path, python: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], requirements)
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--python", str(python)] if uv.exists() else [str(python), "-m", "pip", "install"]
    _run([*install, "--quiet", "--require-hashes", "-r", str(requirements)], requirements)


def run_in(requirements: Path, script: Path, *arguments: object) -> None:
    """Run a script in such an environment; raises `EnvironmentFailed` with what it said where it fails."""
    _run([str(python_of(requirements)), str(script), *map(str, arguments)], requirements, cwd=tempfile.gettempdir())


def _run(command: list[str], requirements: Path, cwd: str | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailed(
            f"{requirements.stem}: {' '.join(command[:5])} ... failed:\n{(done.stderr or done.stdout)[-2000:]}"
        )
