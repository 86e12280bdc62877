"""A real Airflow on SQLite: api-server, scheduler and dag-processor, from a separate environment.

Not `airflow standalone`, which does not stop cleanly. Every user is an admin, and it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saker.deploy.local.server import Server, StackError, answers, free_port

#: States of a run in which it stays.
ENDED = ("success", "failed")


class Airflow:
    """Runs DAGs; talks REST v2."""

    def __init__(self, binary: Path, dags: Path, environment: Mapping[str, str]) -> None:
        """binary: the `airflow` command of its environment. environment: what the DAGs' tasks need to know."""
        self._binary = binary
        self._servers = [Server(f"airflow-{name}") for name in ("api-server", "dag-processor", "scheduler")]
        home, port = self._servers[0].folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **environment,
            "PATH": f"{binary.parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags.absolute()),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        }
        self._token = ""

    def start(self) -> None:
        migrate = [str(self._binary), "db", "migrate"]
        done = subprocess.run(migrate, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"airflow db migrate failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        for server in self._servers:
            server.start([str(self._binary), server.name.removeprefix("airflow-")], self.environment)
        self._servers[0].wait_until(lambda: answers(f"{self.url}/api/v2/version"), timeout=120)
        self._token = self.ask("GET", "/auth/token")["access_token"]
        self._servers[1].wait_until(lambda: self.ask("GET", "/api/v2/dags")["total_entries"] > 0, timeout=120)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the answer; raises `StackError` with the text of an error."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise StackError(f"airflow {method} {path}: {error.code} {error.read().decode()[:500]}") from error

    def run(self, dag: str, conf: Mapping[str, Any], logical_date: str | None = None, timeout: float = 300) -> tuple[str, str]:
        """Trigger a DAG and wait until it ends; its run's id and state."""
        run = self.ask("POST", f"/api/v2/dags/{dag}/dagRuns", {"conf": dict(conf), "logical_date": logical_date})
        path, until = f"/api/v2/dags/{dag}/dagRuns/{run['dag_run_id']}", time.monotonic() + timeout
        while (state := self.ask("GET", path)["state"]) not in ENDED:
            if time.monotonic() > until:
                raise StackError(f"{dag} is {state} after {timeout:.0f} s{self._servers[2].log_tail()}")
            time.sleep(0.5)
        return run["dag_run_id"], state

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        """State of each task of a run."""
        found = self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def returned(self, dag: str, run: str, task: str) -> Any:
        """What a task returned."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value?deserialize=true"
        return self.ask("GET", path)["value"]

    def log(self, dag: str, run: str, task: str) -> str:
        """The text of a task's first try."""
        told = self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1")
        return "\n".join(line["event"] if isinstance(line, dict) else str(line) for line in told["content"])

    def stop(self) -> None:
        for server in reversed(self._servers):
            server.stop()


@contextmanager
def local_airflow(binary: Path, dags: Path, environment: Mapping[str, str]) -> Iterator[Airflow]:
    airflow = Airflow(binary, dags, environment)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.stop()
