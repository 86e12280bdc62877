"""`saker serve` as its user runs it, and the topics and models that tests give it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

from saker.engine.kafka.reader import Record
from saker.engine.metrics.reading import read

PARTITIONS = 4
_METRICS = re.compile(r"metrics at (\S+)/metrics")


@dataclass(frozen=True, slots=True)
class Topics:
    raw: str
    scored: str
    rejected: str
    group: str


@dataclass
class Serving:
    """`saker serve` as its user runs it: a separate process with `--metrics-port 0`, whose log says which port it got.

    (A port that was free a moment ago may be another test's by now.)
    """

    process: subprocess.Popen[str]
    _lines: Queue[str | None] = field(default_factory=Queue)
    _url: str = ""
    _has_url: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)  # pytest shows it where a test fails
            if found := _METRICS.search(line):
                self._url = found[1]
                self._has_url.set()
            self._lines.put(line)
        self._lines.put(None)

    @property
    def url(self) -> str:
        assert self._has_url.wait(90), "saker serve has not said where its metrics are"
        return self._url

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        return read(f"{self.url}/metrics").sum(name)

    def await_line(self, text: str) -> str:
        """Read its log up to a line with `text`."""
        while (line := self._lines.get(timeout=90)) is not None:
            if text in line:
                return line
        raise AssertionError(f"saker serve ended with {self.process.wait()} before it said {text!r}")

    def rest_of_log(self) -> str:
        """What it said that was not awaited, once it has ended."""
        return "".join(line for line in iter(self._lines.get, None) if line is not None)

    def worker_ids(self) -> list[int]:
        return worker_ids(self.process.pid)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def worker_ids(pool: int) -> list[int]:
    children = Path(f"/proc/{pool}/task/{pool}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


Serve = Callable[..., Serving]


Read = Callable[..., list[Record]]
