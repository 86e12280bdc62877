"""Runs a module of saker in a separate process with a time limit, since its input may make it hang or crash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from saker.engine.errors import SakerError

#: Exit code of a module that wrote the reason why it refuses to stdout.
_REFUSED = 3


class NotDone(SakerError):
    """The process was killed at the time limit, or died."""


class Refused(NotDone):
    """The module reported a reason."""


def run_apart(module: str, arguments: Sequence[str], seconds: float) -> None:
    """Raises `Refused` or another `NotDone`."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise NotDone(f"not done after {seconds:.0f} s") from None
    if done.returncode == _REFUSED:
        raise Refused(done.stdout)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        raise NotDone(f"its process ended with {done.returncode}{''.join(f' ({line})' for line in said)}")


def refuse(reason: object) -> None:
    """Called by the module; does not return."""
    sys.stdout.write(str(reason))
    sys.exit(_REFUSED)
