"""Files of Maven Central, locked by their SHA-256 and kept in the user's cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from saker.deploy.local.server import StackError


def fetched(line: str, folder: Path, scratch: Path) -> Path:
    """The file that a line of a lock names: SHA-256, GROUP:ARTIFACT:VERSION and for other files than jars :TYPE:CLASSIFIER.

    It is downloaded to `folder`, by way of `scratch`, unless it is there. Raises `StackError` where it is not as locked.
    """
    digest, coordinates = line.split()
    group, artifact, version, packaging, classifier = (*coordinates.split(":"), "jar", "")[:5]
    path = folder / f"{artifact}-{version}.{packaging}"
    if not path.exists():
        # jgo's resolver brings single files; resolving the tree here would mix the versions of two roots.
        from jgo.maven import MavenContext

        context = MavenContext(repo_cache=scratch, timeout=60)
        project = context.project(group, artifact).at_version(version)
        found = project.artifact(classifier=classifier, packaging=packaging).resolve()
        _check(found, digest, coordinates)
        found.replace(path)
    _check(path, digest, coordinates)
    return path


def _check(path: Path, digest: str, coordinates: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise StackError(
            f"{coordinates}: {path} has SHA-256 {found}, expected {digest}; remove the file to download it again",
        )
