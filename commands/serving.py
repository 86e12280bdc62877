"""`saker serve`."""

from __future__ import annotations

import logging
import platform
from pathlib import Path
from typing import Annotated, Literal

import typer

from saker.commands.options import (
    ON_KAFKA,
    ON_MODEL,
    SERVING,
    Bootstrap,
    Deletes,
    EnvelopeName,
    Input,
    Kernels,
    MessageName,
    MetricsAddress,
    Model,
    OutputFormat,
    OutputRegistry,
    RecordFormat,
    RegistryUrl,
    RejectedTopic,
    SchemaFile,
    Scored,
    Tracking,
    app,
)
from saker.engine import config

VELOCITY = "Velocity features"


@app.command(
    rich_help_panel=SERVING,
    epilog="Example: `saker serve --model fraud@champion --bootstrap-servers localhost:9092 --workers 4`",
)
def serve(
    model: Model,
    bootstrap_servers: Bootstrap,
    source: Input = "raw-transactions",
    output: Scored = "scored-transactions",
    rejected: RejectedTopic = "rejected-transactions",
    group: Annotated[str, typer.Option("--group", help="Consumer group.", rich_help_panel=ON_KAFKA)] = "fraud-scorers",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes.", rich_help_panel="Workers")] = 1,
    metrics_port: Annotated[
        int,
        typer.Option(
            "--metrics-port", help="Port of /metrics, /healthz and /readyz; 0 picks a free one.", rich_help_panel="Metrics"
        ),
    ] = 8000,
    metrics_address: MetricsAddress = "127.0.0.1",
    model_poll: Annotated[
        float, typer.Option("--model-poll", min=0.1, help="Seconds between checks for a new model.", rich_help_panel=ON_MODEL)
    ] = 10.0,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance", help="Name of this pool within its group (default: the host name).", rich_help_panel="Workers"
        ),
    ] = None,
    group_protocol: Annotated[
        Literal["classic", "consumer"],
        typer.Option(
            "--group-protocol",
            help="Rebalance protocol; `consumer` is KIP-848 (Kafka 4), where the broker assigns partitions.",
            rich_help_panel=ON_KAFKA,
        ),
    ] = "classic",
    delivery: Annotated[
        Literal["at_least_once", "exactly_once"],
        typer.Option(
            "--delivery",
            help="`exactly_once` writes results and offsets in transactions, for `read_committed` consumers.",
            rich_help_panel="Delivery",
        ),
    ] = "at_least_once",
    transaction_ms: Annotated[
        float,
        typer.Option(
            "--transaction-ms",
            min=1,
            help="Duration of a transaction in ms, by which results appear later.",
            rich_help_panel="Delivery",
        ),
    ] = 50.0,
    linger_ms: Annotated[
        float | None,
        typer.Option(
            "--linger-ms",
            min=0,
            help="Fixed linger of results in ms (default: 0 with few results in flight, 1 with many).",
            rich_help_panel="Delivery",
        ),
    ] = None,
    late_ms: Annotated[
        float | None,
        typer.Option(
            "--late-ms",
            min=0,
            help="Age in ms above which an arriving record is marked and counted as late.",
            rich_help_panel="Delivery",
        ),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            "--shadow",
            help="Second model whose scores are recorded too, such as fraud@challenger.",
            rich_help_panel="Shadow scoring",
        ),
    ] = None,
    shadow_output: Annotated[
        str, typer.Option("--shadow-output", help="Topic of the scores of both models.", rich_help_panel="Shadow scoring")
    ] = "shadow-scores",
    shadow_cpu: Annotated[
        float,
        typer.Option(
            "--shadow-cpu",
            min=0.01,
            help="CPU limit in cores; records beyond it are skipped and counted.",
            rich_help_panel="Shadow scoring",
        ),
    ] = 0.25,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            help="Ed25519 public key (PEM); models without its signature are rejected.",
            rich_help_panel=ON_MODEL,
        ),
    ] = None,
    hung_seconds: Annotated[
        float,
        typer.Option(
            "--hung-seconds", min=1, help="Seconds without a heartbeat before a worker is restarted.", rich_help_panel="Workers"
        ),
    ] = 60.0,
    record_format: RecordFormat = "json",
    registry_url: RegistryUrl = None,
    schema: SchemaFile = None,
    message: MessageName = "",
    envelope: EnvelopeName = "",
    deletes: Deletes = None,
    output_format: OutputFormat = "json",
    output_registry: OutputRegistry = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="Folder of the snapshots of velocity features; share it among pools that exchange partitions "
            "(default: in the user's cache).",
            rich_help_panel=VELOCITY,
        ),
    ] = None,
    state_mb: Annotated[
        int,
        typer.Option(
            "--state-mb",
            min=1,
            max=65_536,
            help="Memory for the histories of a partition in MB; beyond it the least recently used keys are dropped.",
            rich_help_panel=VELOCITY,
        ),
    ] = 512,
    snapshot_seconds: Annotated[
        float,
        typer.Option(
            "--snapshot-seconds", min=1, help="Seconds between two snapshots of a partition.", rich_help_panel=VELOCITY
        ),
    ] = 60.0,
    state_cold_start: Annotated[
        bool,
        typer.Option(
            "--state-cold-start",
            help="Start although records that velocity features need have been deleted, or partitions were added.",
            rich_help_panel=VELOCITY,
        ),
    ] = False,
    kernels: Kernels = None,
    transport: Annotated[
        Literal["auto", "native", "public"],
        typer.Option(
            "--transport",
            help="Calls to Kafka: `native` uses librdkafka directly, `public` the API of confluent-kafka.",
            rich_help_panel=ON_KAFKA,
        ),
    ] = "auto",
    tracking_uri: Tracking = None,
) -> None:
    """Score a Kafka topic until SIGTERM or Ctrl-C, then drain and commit."""
    from saker.engine.kernels import mode_of
    from saker.engine.model import registry
    from saker.engine.schema_registry import open_format, register_results
    from saker.engine.serving.pool import Pool

    settings = config.ServeSettings(
        bootstrap_servers=bootstrap_servers,
        input=source,
        output=output,
        rejected=rejected,
        group=group,
        workers=workers,
        metrics_address=metrics_address,
        metrics_port=metrics_port,
        model_poll_seconds=model_poll,
        delivery=delivery,
        group_protocol=group_protocol,
        transaction_seconds=transaction_ms / 1000,
        linger_ms=linger_ms,
        late_ms=late_ms,
        shadow_output=shadow_output,
        shadow_cpu=shadow_cpu,
        hung_seconds=hung_seconds,
        instance=instance or platform.node(),
        kernels=mode_of(kernels),
        transport=transport,
        records=config.RecordSettings(
            record_format, registry_url, schema, message, envelope, None if deletes is None else deletes == "skip"
        ),
        state=config.StateSettings(state, state_mb, snapshot_seconds, state_cold_start),
        results=register_results(output_format, output_registry or registry_url, output),
    )
    open_format(settings.records)  # before anything starts: do its settings fit?
    uri = tracking_uri or config.tracking_uri()
    first = registry.locate_or_last(model, uri, public_key)
    if public_key is None and not model.endswith(".onnx"):
        logging.getLogger("saker").warning(
            "signature of %s not checked: whoever may write to the registry can change the model; set --public-key",
            first.name,
        )
    second = None if shadow is None else lambda: registry.locate(shadow, uri, public_key)
    Pool(settings, first, lambda: registry.locate(model, uri, public_key), second).run()
