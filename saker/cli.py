"""The command line. Each command is a function in `commands` and imports heavy packages itself, so `saker --help` is fast."""

from __future__ import annotations

import typer

from saker.commands import (  # noqa: F401 - each module adds its commands to the application
    bench,
    doctor,
    drift,
    generate,
    lifecycle,
    local,
    models,
    monitoring,
    rejected,
    replay,
    score,
    serving,
    verify,
)
from saker.commands.options import app
from saker.engine.errors import SakerError
from saker.engine.log import log_to_stderr

#: In the order in which `saker --help` lists them.
_COMMANDS = (
    *("generate", "train", "export", "promote"),
    *("serve", "score", "replay", "stack", "demo"),
    *("top", "monitor", "drift", "verify", "doctor"),
)
app.registered_commands.sort(key=lambda command: _COMMANDS.index(command.name or getattr(command.callback, "__name__", "")))


def main() -> None:
    """Exit with 0 on success, 1 on failure (one line on stderr gives the reason), 2 on wrong usage, 130 after Ctrl-C."""
    log_to_stderr()
    try:
        app()
    except SakerError as error:
        typer.echo(f"saker: {error}", err=True)
        raise SystemExit(1) from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't start new thread" not in str(error):
            raise
        typer.echo(f"saker: no more memory or threads ({error}): raise the limits of this process (ulimit, cgroup)", err=True)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        extras = {"onnxmltools": "second-opinion", "cryptography": "signing"}.get(error.name or "", "train,local")
        typer.echo(f"saker: this command needs {error.name}: install saker-onnx[{extras}]", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
