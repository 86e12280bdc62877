"""Options that several commands share, and the Typer application to which each module of `commands` adds its own."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    help="Real-time fraud scoring on Kafka: train, export, promote and serve tree models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",  # help in groups; this costs 0.2 s, for `--help` only
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
        typer.Option(
            "--version", callback=_print_versions, is_eager=True, help="Print the versions of saker and its main dependencies."
        ),
    ] = False,
) -> None: ...


#: The groups of commands in `saker --help`.
MODELS, SERVING, OPERATING, MEASURING = "Models", "Serving", "Operating", "Measuring"
#: The groups of options that several commands have.
ON_KAFKA, ON_DATA, ON_MODEL, ON_OUTPUT, ON_RECORDS = "Kafka", "Data", "Model", "Output", "Records"

models = typer.Typer(help="List, inspect, roll back, sign and describe models.", no_args_is_help=True)
app.add_typer(models, name="models", rich_help_panel=MODELS)

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Labelled CSV, Parquet or Avro file, JSON lines, or folder with the IEEE-CIS files.",
        rich_help_panel=ON_DATA,
    ),
]
From = Annotated[
    float | None, typer.Option("--from", help="First value of --time to include, in seconds.", rich_help_panel=ON_DATA)
]
Until = Annotated[
    float | None, typer.Option("--until", help="First value of --time to exclude, in seconds.", rich_help_panel=ON_DATA)
]
Generate = Annotated[
    int, typer.Option("--generate", min=1, help="Number of generated transactions, without --data.", rich_help_panel=ON_DATA)
]
Label = Annotated[
    str, typer.Option("--label", help="Column or path of the label: 1 for fraud, 0 for legitimate.", rich_help_panel=ON_DATA)
]
Time = Annotated[
    str, typer.Option("--time", help="Column or path of the time, by which rows are split.", rich_help_panel=ON_DATA)
]
Identifier = Annotated[str, typer.Option("--id", help="Field that identifies a transaction.", rich_help_panel=ON_DATA)]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        "--missing",
        help="Text that means a missing value in a CSV file, in addition to an empty field. Repeatable.",
        rich_help_panel=ON_DATA,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", help="Seed of every random choice; the same data and seed give the same result.", rich_help_panel=ON_DATA
    ),
]
Tracking = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow server or database (default: `MLFLOW_TRACKING_URI`, or sqlite:///mlflow.db).",
        rich_help_panel=ON_MODEL,
    ),
]
Kernels = Annotated[
    str | None,
    typer.Option(
        "--kernels",
        help="`auto`: native kernels where they support the model; `off`: reference paths (default: `SAKER_KERNELS`, or auto).",
        rich_help_panel=ON_MODEL,
    ),
]
Model = Annotated[
    str, typer.Option("--model", help="FILE.onnx, or a registered model: fraud@champion, fraud/7.", rich_help_panel=ON_MODEL)
]
RecordFormat = Annotated[
    Literal["json", "avro", "protobuf"], typer.Option("--format", help="Format of the records.", rich_help_panel=ON_RECORDS)
]
RegistryUrl = Annotated[
    str | None,
    typer.Option(
        "--registry",
        help="Schema registry (URL of Confluent's API), for records that begin with the id of their schema.",
        rich_help_panel=ON_RECORDS,
    ),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option(
        "--schema",
        help="Schema of all records, which have no id: Avro, a .proto file, or descriptors that protoc wrote.",
        rich_help_panel=ON_RECORDS,
    ),
]
MessageName = Annotated[
    str,
    typer.Option("--message", help="Protobuf message in --schema (default: the first one).", rich_help_panel=ON_RECORDS),
]
EnvelopeName = Annotated[
    str,
    typer.Option(
        "--envelope",
        help="Where the fields are in a record: `debezium` (after), `cloudevents` (data), or a path such as payload.after.",
        rich_help_panel=ON_RECORDS,
    ),
]
Deletes = Annotated[
    Literal["skip", "reject"] | None,
    typer.Option(
        "--deletes",
        help="Tombstones and deleted rows: skip and count, or reject (default: skip with --envelope debezium or a path).",
        rich_help_panel=ON_RECORDS,
    ),
]
OutputFormat = Annotated[
    Literal["json", "avro", "protobuf"],
    typer.Option("--output-format", help="Format of the scores.", rich_help_panel=ON_RECORDS),
]
OutputRegistry = Annotated[
    str | None,
    typer.Option(
        "--output-registry",
        help="Schema registry of Avro and Protobuf scores (default: --registry).",
        rich_help_panel=ON_RECORDS,
    ),
]
#: Topics, by the name that the option has where it is used.
Input = Annotated[str, typer.Option("--input", help="Topic of transactions.", rich_help_panel=ON_KAFKA)]
Scored = Annotated[str, typer.Option("--output", help="Topic of scores.", rich_help_panel=ON_KAFKA)]
Scores = Annotated[str, typer.Option("--scores", help="Topic of scores.", rich_help_panel=ON_KAFKA)]
RejectedTopic = Annotated[str, typer.Option("--rejected", help="Topic of rejected records.", rich_help_panel=ON_KAFKA)]
MetricsAddress = Annotated[
    str,
    typer.Option(
        "--metrics-address", help="Address of the metrics port; 0.0.0.0 for all interfaces.", rich_help_panel="Metrics"
    ),
]
Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap-servers", help="HOST:PORT of one or more Kafka brokers, separated by commas.", rich_help_panel=ON_KAFKA
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.", rich_help_panel=ON_OUTPUT)]


def tell(text: str, told: Any, as_json: bool) -> None:
    """Print the outcome of a command as text or as one line of JSON."""
    typer.echo(json.dumps(told) if as_json else text)


def printable(text: str) -> str:
    """`text` with every control or invisible character escaped: records are untrusted and must not steer a terminal."""
    return "".join(one if one.isprintable() or one in " \t" else ascii(one)[1:-1] for one in text)


def told_to_stop() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
