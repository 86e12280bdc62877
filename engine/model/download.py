"""Fetches one artifact of the registry, in a process that can be killed: a server may send for ever.

registry.fetch --> `python -m saker.engine.model.download SOURCE FOLDER TRACKING_URI`
"""

from __future__ import annotations

import sys
from pathlib import Path

from saker.engine.apart import refuse, run_apart

#: Of MLflow 3: the model that `log_model` wrote. Its own lookup asks the global registry, not that of the tracking URI.
_LOGGED = "models:/m-"
#: 3 GB at 5 MB/s.
_SECONDS = 600.0


def download(source: str, folder: Path, tracking_uri: str, seconds: float = _SECONDS) -> None:
    """Download the file at `source` into `folder`. Raises `NotDone`."""
    run_apart("saker.engine.model.download", [source, str(folder), tracking_uri], seconds)


def main(source: str, folder: str, tracking_uri: str) -> None:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        model, _, file = source.rpartition("/")
        if model.startswith(_LOGGED):
            location = MlflowClient(tracking_uri).get_logged_model(model.removeprefix("models:/")).artifact_location
            source = f"{location}/{file}"
        download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        refuse(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
