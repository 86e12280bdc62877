"""Registered versions: aliases, tags, promotion and rollback."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from saker.engine.config import MODEL
from saker.engine.contract import Contract
from saker.engine.errors import SakerError
from saker.engine.history.table_history import history_of
from saker.engine.model import registry
from saker.engine.model.session import open_session
from saker.engine.onnx_metadata import PARITY_KEY, read_metadata
from saker.engine.records.decode import Decoder

CHALLENGER, CHAMPION = "challenger", "champion"
_BATCH = 1000
_PREVIOUS = "previous_champion"


class RegistryError(SakerError):
    """A run, a version or an alias is not where it should be."""


def candidates(tracking_uri: str) -> tuple[registry.ModelVersion, registry.ModelVersion | None]:
    """The versions that are challenger and champion; None where there is no champion yet."""
    challenger = registry.find_version(f"{MODEL}@{CHALLENGER}", tracking_uri)
    current = MlflowClient(tracking_uri).get_registered_model(MODEL).aliases.get(CHAMPION)
    champion = None if current is None else registry.find_version(f"{MODEL}/{current}", tracking_uri)
    return challenger, champion


def score_rows(
    version: registry.ModelVersion, records: list[bytes], tracking_uri: str
) -> tuple[Contract, NDArray[np.float64], bool]:
    """The version's contract; scores (n,) by the session that serves, NaN for a rejected record; whether its proof is clean."""
    data = registry.fetch(version, tracking_uri).path.read_bytes()
    session = open_session(data)
    decoder = Decoder(session.contract, history=history_of(session.contract))
    scores = np.full(len(records), np.nan)
    for start in range(0, len(records), _BATCH):
        decoded = decoder.decode(records[start : start + _BATCH])
        scores[start + decoded.indices] = session.score(decoded.matrix)
    proof = read_metadata(data).get(PARITY_KEY)
    return session.contract, scores, proof is not None and json.loads(proof)["passed"] is True


def settle(version: registry.ModelVersion, *, promoted: bool, why: str, files: Mapping[str, bytes], tracking_uri: str) -> None:
    """Write a decision down, in tags and with its files in the run of the version; move alias `champion` if it is promoted."""
    client = MlflowClient(tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        client.log_artifacts(version.run_id, folder, "promotion")
    client.set_model_version_tag(MODEL, version.version, "promoted", str(promoted).lower())
    client.set_model_version_tag(MODEL, version.version, "promotion", why)
    if promoted:
        _make_champion(client, str(version.version))


def tag(version: str, name: str, value: str, tracking_uri: str) -> None:
    """Write a tag of a version, such as fraud/7."""
    model, _, number = version.rpartition("/")
    MlflowClient(tracking_uri).set_model_version_tag(model, number, name, value)


def _make_champion(client: MlflowClient, version: str) -> None:
    current = client.get_registered_model(MODEL).aliases.get(CHAMPION)
    if current is not None:
        client.set_registered_model_tag(MODEL, _PREVIOUS, str(current))
    client.set_registered_model_alias(MODEL, CHAMPION, version)


def roll_back(to: str | None, tracking_uri: str) -> tuple[str, str]:
    """Make version `to` (default: the previous champion) champion; returns the old and the new version.

    Raises `RegistryError` if there is no previous champion.
    """
    client = MlflowClient(tracking_uri)
    try:
        found = client.get_registered_model(MODEL)
    except MlflowException as error:
        raise RegistryError(f"no model {MODEL} in the registry at {tracking_uri}: {error.message}") from error
    current, target = found.aliases.get(CHAMPION), to or found.tags.get(_PREVIOUS)
    if target is None:
        raise RegistryError(
            f"no champion of {MODEL} was ever replaced, so there is no previous one; choose a version with --to VERSION"
        )
    registry.find_version(f"{MODEL}/{target}", tracking_uri)
    if str(current) == str(target):
        raise RegistryError(f"{MODEL}/{target} is already champion; choose another version with --to VERSION")
    _make_champion(client, str(target))
    return str(current), str(target)


def versions(tracking_uri: str) -> list[dict[str, str]]:
    """What is registered, newest first: version, aliases, created (ISO), run, promotion, parity, sha256, description."""
    client = MlflowClient(tracking_uri)
    try:
        aliases = client.get_registered_model(MODEL).aliases
    except MlflowException as error:
        raise RegistryError(f"no model {MODEL} in the registry at {tracking_uri}: {error.message}") from error
    named: dict[str, list[str]] = {}
    for alias, version in aliases.items():
        named.setdefault(str(version), []).append(alias)
    found = client.search_model_versions(f"name='{MODEL}'")
    return [
        {
            "version": str(version.version),
            "aliases": ", ".join(sorted(named.get(str(version.version), []))),
            "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            "run": version.run_id,
            "promotion": version.tags.get("promotion", ""),
            "parity": version.tags.get("parity", ""),
            "sha256": version.tags.get(registry.SHA256_TAG, ""),
            "description": version.description or "",
        }
        for version in sorted(found, key=lambda version: -int(version.version))
    ]
