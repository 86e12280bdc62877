"""One server of the local stack: started under a guard, waited for, its log shown when it fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from saker.engine.errors import SakerError


class StackError(SakerError):
    """A server of the local stack did not start, or died; the message ends with its log."""


def free_port(usual: int = 0) -> int:
    """`usual` if it is free, otherwise any free port."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", usual))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether an http URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own servers' http URLs
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


class Server:
    """A process in its own temporary folder; `stop` ends it and removes the folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"saker-{name}-"))
        self._log = self.folder / "server.log"
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "saker.deploy.local.guard", str(self.folder), str(self._log), *command],
            stdin=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches the caller only, which stops its servers in its own order
        )

    def wait_until(self, ready: Callable[[], bool], timeout: float = 60) -> None:
        """Return when `ready` is true; raises `StackError` when the server ends first or after `timeout` seconds."""
        assert self._guard is not None  # noqa: S101 - start comes first
        deadline = time.monotonic() + timeout
        while not ready():
            try:
                code = self._guard.wait(0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise StackError(f"{self.name} was not ready after {timeout:.0f} s{self.log_tail()}") from None
            else:
                raise StackError(f"{self.name} ended with exit code {code} while starting{self.log_tail()}")

    def stop(self) -> int:
        """End it with SIGTERM, or after a grace with SIGKILL, and return its exit code."""
        code = 0
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            code = self._guard.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # the guard does so only when its caller cannot
        return code

    def log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-30:] if self._log.exists() else ["(no log)"]
        return "; the end of its log:\n" + "\n".join(f"  | {line}" for line in lines)
