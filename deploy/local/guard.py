"""Run one server and make sure that it ends when its caller does, however the caller ends.

The caller holds the write end of this process's standard input and never writes. End of file means that the caller
closed it or is dead (kill -9 included): the server's process group gets SIGTERM, after ten seconds SIGKILL, and its
folder is removed. `python -m saker.deploy.local.guard FOLDER LOG COMMAND...`
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_SECONDS = 10


def main(folder: str, log: str, *command: str) -> int:
    with Path(log).open("ab") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    code = server.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # children that outlived it
    if _caller_is_gone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code


_caller_is_gone = threading.Event()


def _stop_at_end_of_input(server: subprocess.Popen[bytes]) -> None:
    os.read(0, 1)
    _caller_is_gone.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
