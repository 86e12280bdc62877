"""Where a model is found: a file, or a version in the MLflow registry. mlflow is loaded only for the registry.

Only the parent process resolves a model; workers are handed a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from saker.engine.apart import NotDone
from saker.engine.config import cache
from saker.engine.errors import ModelRefused
from saker.engine.model import signature
from saker.engine.model.download import download

_log = logging.getLogger("saker")

SHA256_TAG = "sha256"
_FILE = "model.onnx"  # in the artifacts of a version


class NoSuchModel(ModelRefused):
    """The registry answers, and has nothing under this name."""


class RegistryUnreachable(ModelRefused):
    """The registry does not answer, or not as one."""


class ModelVersion(Protocol):
    """What saker reads of mlflow's ModelVersion."""

    name: str
    version: str
    run_id: str
    source: str
    description: str
    creation_timestamp: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine's disk and the name that its results carry: fraud/7, or of a file name and digest."""

    path: Path
    name: str
    sha256: str
    #: What a signature of it names, and the signature, as far as there is one; see `saker.engine.model.signature`.
    identity: str = signature.FILE
    signature: bytes | None = None


def locate(reference: str, tracking_uri: str, public_key: Path | None = None) -> ResolvedModel:
    """Find `reference`: FILE.onnx, NAME@ALIAS or NAME/VERSION.

    The path is that of a copy that is never written to again. public_key: of the required signature. Raises `ModelRefused`,
    `NoSuchModel` if it does not exist, and `RegistryUnreachable` if the registry does not answer.
    """
    try:
        return _checked(_locate(reference, tracking_uri), public_key)
    except OSError as error:
        raise ModelRefused(f"model {reference}: {error}; its file or the cache of models cannot be read or written") from error


def _locate(reference: str, tracking_uri: str) -> ResolvedModel:
    if reference.endswith(".onnx"):
        path = Path(reference)
        if not path.is_file():
            raise NoSuchModel(f"no such file: {path}")
        digest = _digest(path)
        kept = cache("models") / f"{digest}.onnx"
        if not kept.exists() or _digest(kept) != digest:
            with tempfile.TemporaryDirectory(dir=cache("models")) as scratch:
                Path(shutil.copy(path, scratch)).replace(kept)
        beside = path.with_name(f"{path.name}.sig")
        signed = beside.read_bytes() if beside.exists() else None
        return ResolvedModel(kept, f"{path.stem}/{digest[:8]}", digest, signature=signed)
    located = fetch(find_version(reference, tracking_uri), tracking_uri)
    noted = {"name": located.name, "sha256": located.sha256, "signature": (located.signature or b"").hex()}
    with contextlib.suppress(OSError):  # a full disk: the model can be served, but not remembered
        _note(reference, tracking_uri).write_text(json.dumps(noted))
    return located


def _checked(located: ResolvedModel, public_key: Path | None) -> ResolvedModel:
    if public_key is not None:
        signature.check(located.name, located.identity, located.sha256, located.signature, public_key)
    return located


def locate_or_last(reference: str, tracking_uri: str, public_key: Path | None = None) -> ResolvedModel:
    """As `locate`. If the registry does not answer, the last version found there, if it is still in the cache."""
    try:
        return locate(reference, tracking_uri, public_key)
    except RegistryUnreachable as error:
        if (known := _remembered(reference, tracking_uri)) is None:
            raise
        _log.warning("%s; serving %s, the last version found there", error, known.name)
        return _checked(known, public_key)


def _note(reference: str, tracking_uri: str) -> Path:
    """Where it is noted what a reference meant: a pool can start when the registry does not answer."""
    digest = hashlib.sha256(f"{tracking_uri}\n{reference}".encode()).hexdigest()[:16]
    return cache("models") / f"{digest}.json"


def _remembered(reference: str, tracking_uri: str) -> ResolvedModel | None:
    try:
        noted = json.loads(_note(reference, tracking_uri).read_text())
        path = cache("models") / f"{noted['sha256']}.onnx"
        if _digest(path) != noted["sha256"]:
            return None
        name, signed = noted["name"], bytes.fromhex(noted.get("signature", "")) or None
        return ResolvedModel(path, name, noted["sha256"], name, signed)
    except (OSError, ValueError, KeyError, TypeError):  # never noted, or damaged: then nothing is known
        return None


def find_version(reference: str, tracking_uri: str) -> ModelVersion:
    """The registry's version that NAME@ALIAS or NAME/VERSION points to."""
    name, separator, which = next((p for s in "@/" if (p := reference.partition(s))[1]), (reference, "", ""))
    if not (name and which):
        raise ModelRefused(
            f"model {reference!r}: expected FILE.onnx, NAME@ALIAS (fraud@champion) or NAME/VERSION (fraud/7)",
        )
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise ModelRefused(f"model {reference}: the registry needs mlflow, which the extra [registry] installs") from error

    # Its own seven retries take four minutes, in which nothing would be served; who asks, asks again.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        client = MlflowClient(tracking_uri)
        if separator == "@":
            found: ModelVersion = client.get_model_version_by_alias(name, which)
        else:
            found = client.get_model_version(name, which)
    except MlflowException as error:
        # mlflow 3.17 reports a missing alias as an invalid value, a missing version or model as one that does not exist.
        missing = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        raise (NoSuchModel if missing else RegistryUnreachable)(
            f"no model {reference} in the registry at {tracking_uri} ({error.message}); see MLFLOW_TRACKING_URI",
        ) from error
    return found


def fetch(version: ModelVersion, tracking_uri: str) -> ResolvedModel:
    """The version's ONNX file, from the user's cache or the registry, checked against the SHA-256 it was given."""
    name, expected = f"{version.name}/{version.version}", version.tags.get(SHA256_TAG)
    if expected is None:
        raise ModelRefused(f"model {name}: no tag {SHA256_TAG} in the registry; register it with `saker export`")
    path = cache("models") / f"{expected}.onnx"
    if not path.exists() or _digest(path) != expected:
        with tempfile.TemporaryDirectory(dir=cache("models")) as scratch:
            try:
                # By its source: a models:/ address would be looked up in mlflow's global registry, not in this one.
                download(f"{version.source}/{_FILE}", Path(scratch), tracking_uri)
            except NotDone as error:
                raise RegistryUnreachable(
                    f"model {name}: its file cannot be downloaded from {tracking_uri}: {error}"
                ) from error
            fetched = Path(scratch) / _FILE
            if (found := _digest(fetched)) != expected:
                raise ModelRefused(f"model {name}: the file's SHA-256 is {found}, the registry says {expected}")
            fetched.replace(path)
    return ResolvedModel(path, name, expected, name, _signature_of(version))


def _signature_of(version: ModelVersion) -> bytes | None:
    written = version.tags.get(signature.TAG, "")
    try:
        return bytes.fromhex(written) or None
    except ValueError:
        raise ModelRefused(
            f"model {version.name}/{version.version}: tag {signature.TAG} is not hexadecimal: sign it with `saker models sign`"
        ) from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
