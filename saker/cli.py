"""The command line: one function a command, in `commands`. Heavy imports stand inside it, so that `saker --help` is quick."""

from __future__ import annotations

import typer

from saker.commands import (  # noqa: F401 - each adds its commands to the application
    bench,
    doctor,
    drift,
    lifecycle,
    local,
    models,
    monitoring,
    rejected,
    serving,
    verify,
)
from saker.commands.options import app
from saker.engine.errors import SakerError
from saker.engine.log import log_to_stderr


def main() -> None:
    """Exit with 0 when done, 1 when it failed, with one line that says why, 2 for wrong usage; 130 after Ctrl-C."""
    log_to_stderr()
    try:
        app()
    except SakerError as error:
        typer.echo(f"saker: {error}", err=True)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        extras = {"onnxmltools": "second-opinion", "cryptography": "signing"}.get(error.name or "", "train,local")
        typer.echo(f"saker: this command needs {error.name}: install saker-onnx[{extras}]", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
