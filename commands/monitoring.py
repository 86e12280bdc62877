"""`saker monitor` and `saker top`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from saker.commands.options import (
    ON_KAFKA,
    ON_MODEL,
    OPERATING,
    Bootstrap,
    EnvelopeName,
    Input,
    Label,
    MessageName,
    MetricsAddress,
    Model,
    RecordFormat,
    RegistryUrl,
    SchemaFile,
    Scores,
    Tracking,
    app,
    told_to_stop,
)
from saker.engine import config
from saker.engine.errors import SakerError

_log = logging.getLogger("saker")


@app.command(
    rich_help_panel=OPERATING, epilog="Example: `saker monitor --bootstrap-servers localhost:9092 --labels transaction-labels`"
)
def monitor(
    bootstrap_servers: Bootstrap,
    model: Model = "fraud@champion",
    challenger: Annotated[
        str | None,
        typer.Option(
            "--challenger",
            help="Second model to evaluate on the labelled records, such as fraud@challenger.",
            rich_help_panel=ON_MODEL,
        ),
    ] = None,
    source: Input = "raw-transactions",
    scores: Scores = "scored-transactions",
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Topic of labels: JSON objects with the identifier and --label of a transaction.",
            rich_help_panel=ON_KAFKA,
        ),
    ] = None,
    label: Label = "isFraud",
    last: Annotated[
        int,
        typer.Option(
            "--last", min=100, help="Number of newest scores to evaluate, with their records.", rich_help_panel=ON_KAFKA
        ),
    ] = 10_000,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between evaluations.")] = 60.0,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", help="Port of /metrics and /readyz; 0 picks a free one.", rich_help_panel="Metrics")
    ] = 8001,
    metrics_address: MetricsAddress = "127.0.0.1",
    record_format: RecordFormat = "json",
    registry_url: RegistryUrl = None,
    schema: SchemaFile = None,
    message: MessageName = "",
    envelope: EnvelopeName = "",
    tracking_uri: Tracking = None,
) -> None:
    """Continuously compare live records with the training data, and scores with labels as they arrive.

    Exports drift, precision and recall as metrics until SIGTERM or Ctrl-C. It only reads from Kafka.
    """
    from saker.commands.live_monitor import Watch
    from saker.engine.metrics.exporter import serve_http, url_of
    from saker.engine.schema_registry import open_format

    models = {"champion": model, "challenger": challenger}
    records = open_format(config.RecordSettings(record_format, registry_url, schema, message, envelope))
    watch = Watch(bootstrap_servers, models, (source, scores, labels), label, last, tracking_uri, records)
    stop = told_to_stop()
    server = serve_http(watch, metrics_port, lambda: True, lambda: watch.at > 0, metrics_address)
    _log.info("metrics at %s/metrics", url_of(metrics_address, server.server_port))
    while not stop.is_set():
        try:
            watch.check()
        except SakerError as error:
            _log.warning("%s; retrying in %.0f s", error, every)
        stop.wait(every)
    server.shutdown()


@app.command(rich_help_panel=OPERATING, epilog="Example: `saker top`, or `saker top --url http://scorer-3:8000/metrics`")
def top(
    url: Annotated[str, typer.Option("--url", help="Metrics URL of a pool.")] = "http://127.0.0.1:8000/metrics",
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between refreshes.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one view and exit.")] = False,
) -> None:
    """Show a live view of a pool: throughput, latency by stage, lag, workers and model."""
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
