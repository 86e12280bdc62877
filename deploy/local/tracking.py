"""An MLflow server on SQLite, its artifacts in the same temporary folder or where they are told to be."""

from __future__ import annotations

import sys

from saker.deploy.local.server import Server, answers, free_port


class Tracking(Server):
    def __init__(self, *options: str) -> None:
        """options: of `mlflow server`, for the artifacts; without them they pass through the server into its folder."""
        super().__init__("mlflow")
        self._options = options or ("--artifacts-destination", str(self.folder / "artifacts"))
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def launch(self) -> None:
        self.start(
            [
                *(sys.executable, "-m", "mlflow", "server"),
                *("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"),
                *self._options,
            ],
            # Without its job runners the server needs half the memory, and nothing here starts a job.
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )

    def wait(self) -> None:
        self.wait_until(lambda: answers(f"{self.uri}/health"), timeout=120)
