"""A local stack, and the demo on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saker.commands.options import app, told_to_stop


@app.command(epilog="Example: `saker stack`")
def stack(
    monitoring: Annotated[
        bool,
        typer.Option("--monitoring", help="Prometheus too, with rules and alerts, for `serve` and `monitor` on their ports."),
    ] = False,
) -> None:
    """Run a local Kafka and MLflow in the foreground until Ctrl-C."""
    from contextlib import ExitStack

    from saker.deploy.local.stack import local_stack

    stop = told_to_stop()
    typer.echo("starting Kafka and MLflow ...")
    with local_stack(lasting=True) as running, ExitStack() as more:
        prometheus = ""
        if monitoring:
            from saker.deploy.local.monitoring import Prometheus

            server = Prometheus({"saker": ["127.0.0.1:8000"], "saker-monitor": ["127.0.0.1:8001"]})
            more.callback(server.stop)
            server.launch()
            server.wait()
            prometheus = f"Prometheus  {server.url}\n"
        typer.echo(
            f"Kafka   {running.bootstrap_servers}\n"
            f"MLflow  {running.tracking_uri}\n{prometheus}\n"
            "In another terminal:\n"
            f"  export MLFLOW_TRACKING_URI={running.tracking_uri}\n"
            "  saker train && saker export && saker promote\n"
            f"  saker serve --model fraud@champion --bootstrap-servers {running.bootstrap_servers} --workers 2\n"
            "  saker replay --generate 20000 --first 50000 --rate 1000 "
            f"--bootstrap-servers {running.bootstrap_servers}\n"
            "\nCtrl-C stops all of it and removes the data.",
        )
        stop.wait()


@app.command(epilog="Example: `saker demo --output demo-report`")
def demo(
    output: Annotated[Path, typer.Option("--output", help="Folder for the report.")] = Path("demo-report"),
) -> None:
    """Run the whole line on a local stack: train, export, register, promote, serve, replay, check every score."""
    from saker.commands.demo import run

    run(output, typer.echo)
