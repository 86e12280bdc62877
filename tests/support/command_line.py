"""Commands in this process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from saker import cli


def main_here(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `saker`, in this process: one of its own takes seconds to import what the command needs."""
    printed, told = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as inside:
        patch = inside.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", ["saker", *arguments])
        for redirected in (contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told)):
            inside.enter_context(redirected)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), printed.getvalue(), told.getvalue())
