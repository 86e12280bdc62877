"""`saker monitor`: whether the model is still right, as metrics; and `saker top`, a look at what serves."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from saker.commands.options import Bootstrap, Label, Tracking, app, told_to_stop
from saker.engine.errors import SakerError

_log = logging.getLogger("saker")


@app.command(epilog="Example: `saker monitor --bootstrap-servers localhost:9092 --labels transaction-labels`")
def monitor(
    bootstrap_servers: Bootstrap,
    model: Annotated[str, typer.Option("--model", help="FILE.onnx, fraud@champion or fraud/7.")] = "fraud@champion",
    challenger: Annotated[
        str | None, typer.Option("--challenger", help="Model to compare with on the labelled records, fraud@challenger say.")
    ] = None,
    source: Annotated[str, typer.Option("--input", help="Topic of raw transactions.")] = "raw-transactions",
    scores: Annotated[str, typer.Option("--scores", help="Topic of scores.")] = "scored-transactions",
    labels: Annotated[
        str | None, typer.Option("--labels", help="Topic of labels: identifier and --label of a transaction, as JSON.")
    ] = None,
    label: Label = "isFraud",
    last: Annotated[int, typer.Option("--last", min=100, help="So many of the newest scores, and their records.")] = 10_000,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 60.0,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Port of /metrics and /readyz.")] = 8001,
    metrics_address: Annotated[str, typer.Option("--metrics-address", help="Address they are served on.")] = "127.0.0.1",
    tracking_uri: Tracking = None,
) -> None:
    """Look at live records again and again: drift against the training rows, precision and recall where labels have come.

    Runs until Ctrl-C or SIGTERM, beside `saker serve`, and touches nothing.
    """
    from saker.commands.live_monitor import Watch
    from saker.engine.metrics.exporter import serve_http, url_of

    models = {"champion": model, "challenger": challenger}
    watch = Watch(bootstrap_servers, models, (source, scores, labels), label, last, tracking_uri)
    stop = told_to_stop()
    server = serve_http(watch, metrics_port, lambda: True, lambda: watch.at > 0, metrics_address)
    _log.info("metrics at %s/metrics", url_of(metrics_address, server.server_port))
    while not stop.is_set():
        try:
            watch.check()
        except SakerError as error:
            _log.warning("%s; looking again in %.0f s", error, every)
        stop.wait(every)
    server.shutdown()


@app.command(epilog="Example: `saker top`, or `saker top --url http://scorer-3:8000/metrics`")
def top(
    url: Annotated[str, typer.Option("--url", help="Metrics of a pool.")] = "http://127.0.0.1:8000/metrics",
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two readings.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one view, and end.")] = False,
) -> None:
    """A live view of a pool: throughput, latency by stage, lag, workers and model."""
    from rich.console import Console
    from rich.live import Live

    from saker.commands.top import views

    shown = views(url, every)
    if once:
        Console().print(next(shown))
        return
    with Live(next(shown), screen=True, auto_refresh=False) as live:
        for view in shown:
            live.update(view, refresh=True)
