"""`saker serve`, `saker score` and `saker replay`."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saker.commands.options import (
    ON_DATA,
    ON_KAFKA,
    ON_MODEL,
    ON_OUTPUT,
    ON_RECORDS,
    SERVING,
    Bootstrap,
    Deletes,
    EnvelopeName,
    Identifier,
    Input,
    Kernels,
    Label,
    MessageName,
    MetricsAddress,
    Missing,
    Model,
    OutputFormat,
    OutputRegistry,
    RecordFormat,
    RegistryUrl,
    RejectedTopic,
    SchemaFile,
    Scored,
    Seed,
    Tracking,
    app,
    printable,
)
from saker.commands.progress import steps
from saker.commands.records import file_records, folder_records, generated, generated_columns, in_format, is_table
from saker.engine import config
from saker.engine.errors import SakerError
from saker.engine.onnx_metadata import UNPROVEN

if TYPE_CHECKING:
    from saker.engine.contract import Contract
    from saker.engine.records.formats import Schema


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
        records=_record_settings(record_format, registry_url, schema, message, envelope, deletes),
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


@app.command(
    rich_help_panel=SERVING, epilog="Example: `saker replay --generate 20000 --bootstrap-servers localhost:9092 --rate 2000`"
)
def replay(
    bootstrap_servers: Bootstrap,
    file: Annotated[
        Path | None, typer.Option("--file", help="CSV, Parquet or Avro file, or JSON lines.", rich_help_panel=ON_DATA)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with the IEEE-CIS files, streamed and joined.", rich_help_panel=ON_DATA),
    ] = None,
    part: Annotated[
        Literal["train", "test"], typer.Option("--part", help="Part of --data to send.", rich_help_panel=ON_DATA)
    ] = "train",
    generate: Annotated[
        int | None, typer.Option("--generate", min=1, help="Number of generated transactions.", rich_help_panel=ON_DATA)
    ] = None,
    first: Annotated[
        int, typer.Option("--first", min=0, help="Number of the first generated transaction.", rich_help_panel=ON_DATA)
    ] = 0,
    seed: Seed = 0,
    topic: Annotated[str, typer.Option("--topic", help="Topic to send to.", rich_help_panel=ON_KAFKA)] = "raw-transactions",
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Records per second (default: as fast as possible).", rich_help_panel=ON_KAFKA),
    ] = None,
    key: Annotated[
        str, typer.Option("--key", help="Field or path that becomes the Kafka key.", rich_help_panel=ON_KAFKA)
    ] = "card1",
    label: Label = "isFraud",
    id_field: Identifier = "TransactionID",
    missing: Missing = None,
    record_format: Annotated[
        Literal["json", "avro", "protobuf"],
        typer.Option("--format", help="Format to send in.", rich_help_panel=ON_RECORDS),
    ] = "json",
    registry_url: Annotated[
        str | None,
        typer.Option(
            "--registry",
            help="Schema registry; the schema is registered under TOPIC-value, and records begin with its id.",
            rich_help_panel=ON_RECORDS,
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            "--schema",
            help="Avro schema (default: from the types of the columns), or a .proto file.",
            rich_help_panel=ON_RECORDS,
        ),
    ] = None,
    message: MessageName = "",
) -> None:
    """Send transactions to a topic at a fixed rate (open loop), without their label."""
    from saker.engine.kafka import replay
    from saker.engine.schema_registry import register_schema

    if sum(source is not None for source in (file, data, generate)) != 1:
        raise typer.BadParameter("expected exactly one of --file, --data and --generate")
    total = 0  # unknown for a folder before it is read
    if file:
        read = file_records(file, id_field, label, missing or ())
        total, pairs = len(read.values), replay.keyed(map(read.as_json, read.values), key)
    elif data:
        pairs = replay.ahead(folder_records, data, part, label, key)
    else:
        total = generate or 0
        pairs = replay.ahead(generated, total, seed, first, label, key)
    if record_format != "json":
        columns = read.columns if file else partial(generated_columns, data, part, label)
        own = read.of.schema if file and schema is None and record_format == "avro" else None
        of = own or _schema_to_send(record_format, schema, message, columns)
        pairs = in_format(pairs, of, register_schema(registry_url, topic, of), None if own is None else read.values)
    with steps("replay") as say:
        told = replay.replay(
            pairs,
            bootstrap_servers=bootstrap_servers,
            topic=topic,
            rate=rate,
            report=lambda sent: say(
                f"{sent.sent:,} sent, {sent.acknowledged:,} acknowledged",
                sent.acknowledged / total if total else None,
            ),
        )
    typer.echo(
        f"sent {told.sent}, acknowledged {told.acknowledged} in {told.seconds:.1f} s "
        f"({told.sent / told.seconds:,.0f} records/s, at most {told.latest_seconds * 1000:.0f} ms behind schedule)",
    )
    if told.acknowledged != told.sent:
        raise replay.LoadError(f"{told.sent - told.acknowledged} records were not acknowledged: {told.errors[:1]}")


@app.command(rich_help_panel=SERVING, epilog="Example: `saker score transactions.csv --model fraud.onnx -o scores.jsonl`")
def score(
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Avro file, or JSON lines.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File for the scores, as JSON lines.", rich_help_panel=ON_OUTPUT)
    ],
    model: Model = "fraud@champion",
    rejected: Annotated[
        Path | None,
        typer.Option(
            "--rejected", help="File for the rejected records and their reasons, as JSON lines.", rich_help_panel=ON_OUTPUT
        ),
    ] = None,
    label: Label = "isFraud",
    missing: Missing = None,
    envelope: EnvelopeName = "",
    deletes: Deletes = None,
    kernels: Kernels = None,
    tracking_uri: Tracking = None,
) -> None:
    """Score a file with the serving pipeline, without Kafka."""
    import orjson

    from saker.engine.contract import read_contract
    from saker.engine.model import registry
    from saker.engine.model.active_model import ActiveModel
    from saker.engine.pipeline import score_batch
    from saker.engine.schema_registry import open_format

    around = open_format(_record_settings(envelope=envelope, deletes=deletes))
    located = registry.locate(model, tracking_uri or config.tracking_uri())
    contract = read_contract(located.path)
    read = file_records(file, contract.id_path or contract.id_field, label, missing or ())
    of = replace(read.of, envelope=around.envelope, skip_deletes=around.skip_deletes)
    active = ActiveModel.load(located.path, located.name, kernels, of)
    scores = blank = skipped = 0
    refused = []
    lines = read.values
    with output.open("wb") as out:
        for start in range(0, len(lines), 500):
            batch = score_batch(active, lines[start : start + 500])
            blank += active.decoder.drain_blank()
            if start == 0 and blank and blank == len(batch.results):
                raise SakerError(_none_of(file, active.decoder.contract, read.as_json(lines[0])))
            scores += len(batch.results)
            skipped += sum(batch.skipped.values())
            out.writelines(result + b"\n" for result in batch.results)
            refused += [
                {"line": start + r.index + 1, "code": r.reason, "field": r.field, "message": r.message}
                for r in batch.rejections
            ]
    if rejected is not None:
        rejected.write_bytes(b"".join(orjson.dumps(reason) + b"\n" for reason in refused))
    if is_table(file) and lines and (absent := _absent(active.decoder.contract, lines[0])):
        told = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")  # noqa: PLR2004 - a few
        typer.echo(f"  {file} has no column for {len(absent)} fields of the model: {told}", err=True)
    if blank:
        typer.echo(f"  {blank} of {scores} records have none of the model's fields", err=True)
    more = f", skipped {skipped}" if skipped else ""
    typer.echo(f"scored {scores}, rejected {len(refused)}{more} with {active.name}; written to {output}")
    if not active.session.proven:
        typer.echo(f"  {active.name} is {UNPROVEN}")
    for reason in refused[:3]:
        typer.echo(printable(f"  record {reason['line']}: {reason['message']}"), err=True)


def _schema_to_send(record_format: str, file: Path | None, message: str, columns: Callable[[], Any]) -> Schema:
    from saker.engine.records.formats import Schema
    from saker.engine.schema_registry import read_schema

    if file is not None:
        return read_schema(file, record_format, message)
    if record_format == "protobuf":
        raise SakerError("--format protobuf: expected --schema FILE, since the numbers of fields cannot be guessed")
    from saker.training.avro_rows import schema_of

    return Schema("avro", schema_of(columns(), "Transaction"))


def _record_settings(
    record_format: str = "json",
    registry: str | None = None,
    schema: Path | None = None,
    message: str = "",
    envelope: str = "",
    deletes: str | None = None,
) -> config.RecordSettings:
    skip = None if deletes is None else deletes == "skip"
    return config.RecordSettings(record_format, registry, schema, message, envelope, skip)


def _absent(contract: Contract, record: bytes) -> list[str]:
    """The fields of the contract that are absent from a record, sorted."""
    import orjson

    from saker.engine.paths import is_there

    try:
        parsed = orjson.loads(record)
    except ValueError:
        return []
    return sorted({feature.field for feature in contract.features if not is_there(parsed, feature.steps)})


def _none_of(file: Path, contract: Contract, record: bytes) -> str:
    absent = set(_absent(contract, record))
    expected = ", ".join(feature.field for feature in contract.features[:5])
    return (
        f"{file}: its records have none of the model's {len(contract.features)} fields ({expected}, ...), so a score would say "
        f"nothing; the first begins with {printable(record[:80].decode(errors='replace'))}"
    ) + ("" if absent else ": all of them are empty there")
