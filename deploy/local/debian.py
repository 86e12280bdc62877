"""Programs from Debian's packages, unpacked into the user's cache: nothing is installed, and no rights are needed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from saker.deploy.local.server import StackError
from saker.engine.config import cache

# Debian's Prometheus and Alertmanager search for their own files there, whatever their options; these search below the folder
# that they are started in. As long as the other, for Go keeps the lengths of its strings elsewhere.
_THEIRS, _OURS = b"/usr/share/prometheus", b"././././././././share"


def program(package: str, name: str) -> Path:
    """The program `name` of Debian's package, signed by Debian as apt checks; installed here or unpacked.

    Raises `StackError` where it cannot be had. What it reads must lie where it is started: see `own_files`.
    """
    if (installed := Path("/usr/bin") / name).exists():
        return installed
    unpacked = cache("debian") / package
    if not unpacked.exists():
        with FileLock(f"{unpacked}.lock"):
            if not unpacked.exists():
                _unpack(package, unpacked)
    return unpacked / "usr" / "bin" / name


def own_files(binary: Path, folder: Path) -> None:
    """Put the files that an unpacked program reads into the folder that it will be started in."""
    shared = binary.parents[1] / "share" / "prometheus"
    if binary.parent != Path("/usr/bin") and shared.exists():
        (folder / "share").symlink_to(shared)


def _unpack(package: str, into: Path) -> None:
    if shutil.which("apt-get") is None:
        raise StackError(f"{package} is not installed, and saker can download it only on Debian")
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        _fetch(package, Path(scratch))
        for binary in (Path(scratch) / "unpacked" / "usr" / "bin").iterdir():
            binary.write_bytes(binary.read_bytes().replace(_THEIRS, _OURS))
        (Path(scratch) / "unpacked").replace(into)


def _fetch(package: str, folder: Path) -> None:
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    # Separate package lists: those of the system may be missing, and only root may update them.
    of_its_own = {"Dir::State::lists": folder / "lists", "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root"}
    apt = ["apt-get", "-qq", *(word for name, value in of_its_own.items() for word in ("-o", f"{name}={value}"))]
    for command in ([*apt, "update"], [*apt, "download", package]):
        # An unreachable list of some other source is no failure as long as the package is found.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.deb"))
    if not archives:
        raise StackError(f"Debian's package {package} could not be downloaded: {done.stderr.strip()[-1000:]}")
    subprocess.run(["dpkg-deb", "-x", archives[0], folder / "unpacked"], check=True)
