"""Where a model is found: a file, or a version in the MLflow registry. mlflow is loaded only for the registry.

Only the parent process resolves a model; workers are handed a path.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelRefused

SHA256_TAG = "sha256"


@dataclass(frozen=True, slots=True)
class Located:
    """A model on this machine's disk and the name that its results carry: fraud/7, or of a file name and digest."""

    path: Path
    name: str
    sha256: str


def locate(reference: str, tracking_uri: str) -> Located:
    """Find `reference`: FILE.onnx, NAME@ALIAS or NAME/VERSION; raises `ModelRefused` when it is not there."""
    if reference.endswith(".onnx"):
        path = Path(reference)
        if not path.is_file():
            raise ModelRefused(f"no such file: {path}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Located(path.resolve(), f"{path.stem}/{digest[:8]}", digest)
    return fetch(find_version(reference, tracking_uri), tracking_uri)


def find_version(reference: str, tracking_uri: str) -> Any:
    """The registry's version (mlflow ModelVersion) that NAME@ALIAS or NAME/VERSION points to."""
    name, separator, which = next((p for s in "@/" if (p := reference.partition(s))[1]), (reference, "", ""))
    if not (name and which):
        raise ModelRefused(
            f"model {reference!r}: expected FILE.onnx, NAME@ALIAS (fraud@champion) or NAME/VERSION (fraud/7)",
        )
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise ModelRefused(f"model {reference}: the registry needs mlflow, which is in the extra [train]") from error

    client = MlflowClient(tracking_uri)
    try:
        if separator == "@":
            return client.get_model_version_by_alias(name, which)
        return client.get_model_version(name, which)
    except MlflowException as error:
        raise ModelRefused(
            f"no model {reference} in the registry at {tracking_uri} ({error.message}); see MLFLOW_TRACKING_URI",
        ) from error


def fetch(version: Any, tracking_uri: str) -> Located:
    """The version's ONNX file, from the user's cache or the registry, checked against the SHA-256 it was given."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    name, expected = f"{version.name}/{version.version}", version.tags.get(SHA256_TAG)
    if expected is None:
        raise ModelRefused(f"model {name}: no tag {SHA256_TAG} in the registry; register it with `saker export`")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saker" / "models"
    path = cache / f"{expected}.onnx"
    if not path.exists() or _digest(path) != expected:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            try:
                # By its source: a models:/ address would be looked up in mlflow's global registry, not in this one.
                uri = f"{version.source}/model.onnx"
                fetched = Path(download_artifacts(artifact_uri=uri, dst_path=scratch, tracking_uri=tracking_uri))
            except (MlflowException, OSError) as error:
                raise ModelRefused(f"model {name}: its file cannot be fetched from {tracking_uri}: {error}") from error
            if (found := _digest(fetched)) != expected:
                raise ModelRefused(f"model {name}: the file's SHA-256 is {found}, the registry says {expected}")
            fetched.replace(path)
    return Located(path, name, expected)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
