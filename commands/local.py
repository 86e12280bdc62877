"""`saker stack` and `saker demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saker.commands.options import SERVING, app, told_to_stop


@app.command(rich_help_panel=SERVING, epilog="Example: `saker stack`")
def stack(
    monitoring: Annotated[
        bool,
        typer.Option("--monitoring", help="Also run Prometheus with saker's rules and alerts."),
    ] = False,
    registry: Annotated[
        bool,
        typer.Option("--registry", help="Also run a schema registry (Apicurio, 159 MB to download once)."),
    ] = False,
) -> None:
    """Run a local Kafka and MLflow until Ctrl-C, then remove their data."""
    from contextlib import ExitStack

    from saker.deploy.local.stack import local_stack

    stop = told_to_stop()
    typer.echo("starting Kafka and MLflow ...")
    with local_stack(lasting=True, usual_ports=True, registry=registry) as running, ExitStack() as more:
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
            f"MLflow  {running.tracking_uri}\n{prometheus}"
            f"{f'Registry  {running.registry}{chr(10)}' if running.registry else ''}\n"
            "In another terminal:\n"
            f"  export MLFLOW_TRACKING_URI={running.tracking_uri}\n"
            "  saker train && saker export && saker promote\n"
            f"  saker serve --model fraud@champion --bootstrap-servers {running.bootstrap_servers} --workers 2\n"
            "  saker replay --generate 20000 --first 50000 --rate 1000 "
            f"--bootstrap-servers {running.bootstrap_servers}\n"
            "\nCtrl-C stops everything and removes the data.",
        )
        stop.wait()


@app.command(rich_help_panel=SERVING, epilog="Example: `saker demo --output demo-report`")
def demo(
    output: Annotated[Path, typer.Option("--output", help="Folder for the report.")] = Path("demo-report"),
) -> None:
    """Train, export, register, promote, serve and replay on a local stack, and check every score."""
    from saker.commands.demo import run

    run(output, typer.echo)
