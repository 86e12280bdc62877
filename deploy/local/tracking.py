"""An MLflow server on SQLite, with its artifacts in the same temporary folder or elsewhere."""

from __future__ import annotations

import sys

from saker.deploy.local.server import Server, answers, free_port


class Tracking(Server):
    def __init__(self, *options: str, usual_port: bool = False) -> None:
        """options: of `mlflow server`, for artifacts (default: into its folder). usual_port: 5000 if it is free."""
        super().__init__("mlflow")
        self._options = options or ("--artifacts-destination", str(self.folder / "artifacts"))
        self._port = free_port(5000 if usual_port else 0)
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
