"""Options that several commands have, and the application that the commands are added to."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Real-time fraud scoring on Kafka: train, export, promote, serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help through rich takes 0.2 s longer
)


def _print_versions(asked: bool) -> None:
    if asked:
        from saker.commands.versions import installed

        typer.echo("\n".join(installed()))
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Print versions: saker's and what it uses."),
    ] = False,
) -> None: ...


models = typer.Typer(help="Models: what they expect and promise.", no_args_is_help=True)
app.add_typer(models, name="models")

Data = Annotated[
    Path | None, typer.Option("--data", help="A labelled CSV file with a header line, or a folder with the IEEE-CIS files.")
]
From = Annotated[float | None, typer.Option("--from", help="Only rows with --time from here on, in seconds.")]
Until = Annotated[float | None, typer.Option("--until", help="Only rows with --time before this, in seconds.")]
Generate = Annotated[int, typer.Option("--generate", min=1, help="Without --data: so many generated transactions.")]
Label = Annotated[str, typer.Option("--label", help="Column with 1 for fraud and 0 for legitimate.")]
Time = Annotated[str, typer.Option("--time", help="Column with the time in seconds; rows are split by it.")]
Identifier = Annotated[str, typer.Option("--id", help="Field that identifies a transaction.")]
Missing = Annotated[
    list[str] | None,
    typer.Option("--missing", help="What means missing in a CSV file, beside an empty field; may be given several times."),
]
Seed = Annotated[int, typer.Option("--seed", help="The same data and seed give the same model.")]
Tracking = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow; without it MLFLOW_TRACKING_URI, or sqlite:///mlflow.db here."),
]
Kernels = Annotated[
    str | None,
    typer.Option(
        "--kernels",
        help="auto: the native kernels where they take the model; off: the reference paths. Without it SAKER_KERNELS, or auto.",
    ),
]
Bootstrap = Annotated[str, typer.Option("--bootstrap-servers", help="HOST:PORT of a Kafka broker.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead, for other programs.")]


def tell(text: str, told: Any, as_json: bool) -> None:
    """The outcome of a command, for people or as JSON."""
    typer.echo(json.dumps(told) if as_json else text)


def printable(text: str) -> str:
    """With what steers a terminal, or hides text, written as an escape: records may hold anything."""
    return "".join(one if one.isprintable() or one in " \t" else ascii(one)[1:-1] for one in text)


def told_to_stop() -> threading.Event:
    """Set by SIGTERM or Ctrl-C, from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
