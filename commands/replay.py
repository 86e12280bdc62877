"""`saker replay`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saker.commands.options import (
    ON_DATA,
    ON_KAFKA,
    ON_RECORDS,
    SERVING,
    Bootstrap,
    Identifier,
    Label,
    MessageName,
    Missing,
    Seed,
    app,
)
from saker.commands.progress import steps
from saker.commands.records import file_records, folder_records, generated, generated_columns, in_format
from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.engine.records.formats import Schema


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
        done = replay.replay(
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
        f"sent {done.sent}, acknowledged {done.acknowledged} in {done.seconds:.1f} s "
        f"({done.sent / done.seconds:,.0f} records/s, at most {done.latest_seconds * 1000:.0f} ms behind schedule)",
    )
    if done.acknowledged != done.sent:
        raise replay.LoadError(f"{done.sent - done.acknowledged} records were not acknowledged: {done.errors[:1]}")


def _schema_to_send(record_format: str, file: Path | None, message: str, columns: Callable[[], Any]) -> Schema:
    from saker.engine.records.formats import Schema
    from saker.engine.schema_registry import read_schema

    if file is not None:
        return read_schema(file, record_format, message)
    if record_format == "protobuf":
        raise SakerError("--format protobuf: expected --schema FILE, since the numbers of fields cannot be guessed")
    from saker.training.avro_rows import schema_of

    return Schema("avro", schema_of(columns(), "Transaction"))
