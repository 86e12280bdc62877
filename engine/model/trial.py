"""Opens a model in a separate process before any other process does: a damaged file may hang or crash its reader.

try_model --> `python -m saker.engine.model.trial FILE` --> open_session: fine, refused with the reason, or killed
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from saker.engine.apart import NotDone, Refused, refuse, run_apart
from saker.engine.errors import ModelRefused, SakerError

_SECONDS, _BYTES_PER_SECOND = 60.0, 10_000_000


def try_model(path: Path, name: str, kernels: str | None = None, seconds: float = _SECONDS) -> None:
    """Raises `ModelRefused` when `open_session` does, when it does not end in its time, or ends its process.

    seconds: for a file of no size; each 10 MB add one.
    """
    seconds += path.stat().st_size / _BYTES_PER_SECOND
    arguments = [str(path), kernels or "", str(int(seconds) + 1)]
    try:
        run_apart("saker.engine.model.trial", arguments, seconds)
    except Refused as error:
        raise ModelRefused(str(error)) from None
    except NotDone as error:
        raise ModelRefused(f"model {name}: its file is damaged, {error} while it was opened: export it again") from None


def main(path: str, kernels: str, cpu_seconds: str) -> None:
    from saker.engine.model.session import open_session

    limit = int(cpu_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))  # also if the waiting process was killed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        open_session(Path(path), kernels or None)
    except SakerError as error:
        refuse(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
