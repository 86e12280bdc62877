"""An MLflow server on SQLite, its artifacts in the same temporary folder."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

from deploy.local.server import Server, free_port


class Tracking(Server):
    def __init__(self) -> None:
        super().__init__("mlflow")
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def launch(self) -> None:
        self.start(
            [
                *(sys.executable, "-m", "mlflow", "server"),
                *("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            # Without its job runners the server needs half the memory, and nothing here starts a job.
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )

    def wait(self) -> None:
        self.wait_until(self._answers, timeout=120)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:  # noqa: S310 - our own http URL
                return bool(answer.status == 200)  # noqa: PLR2004
        except (urllib.error.URLError, OSError):
            return False
