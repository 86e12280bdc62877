"""Scores: of a topic, of a file; and transactions to score."""

from __future__ import annotations

import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saker.commands.options import Bootstrap, Identifier, Kernels, Label, Missing, Seed, Tracking, app, printable
from saker.commands.progress import steps
from saker.commands.records import file_records, folder_records, generated, is_table
from saker.engine import config
from saker.engine.errors import SakerError
from saker.engine.onnx_metadata import UNPROVEN

if TYPE_CHECKING:
    from saker.engine.contract import Contract


@app.command(epilog="Example: `saker serve --model fraud@champion --bootstrap-servers localhost:9092 --workers 4`")
def serve(
    model: Annotated[str, typer.Option("--model", help="FILE.onnx, fraud@champion or fraud/7.")],
    bootstrap_servers: Bootstrap,
    source: Annotated[str, typer.Option("--input", help="Topic of raw transactions.")] = "raw-transactions",
    output: Annotated[str, typer.Option("--output", help="Topic of scores.")] = "scored-transactions",
    rejected: Annotated[str, typer.Option("--rejected", help="Topic of rejections.")] = "rejected-transactions",
    group: Annotated[str, typer.Option("--group", help="Consumer group.")] = "fraud-scorers",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes.")] = 1,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Port of /metrics, /healthz and /readyz.")] = 8000,
    metrics_address: Annotated[
        str, typer.Option("--metrics-address", help="Address they are served on; 0.0.0.0 for every network.")
    ] = "127.0.0.1",
    model_poll: Annotated[
        float, typer.Option("--model-poll", min=0.1, help="Seconds between two looks whether the model has changed.")
    ] = 10.0,
    instance: Annotated[str | None, typer.Option("--instance", help="Name of this pool in its group.")] = None,
    group_protocol: Annotated[
        Literal["classic", "consumer"],
        typer.Option("--group-protocol", help="consumer: that of KIP-848 (Kafka 4), where the broker assigns partitions."),
    ] = "classic",
    delivery: Annotated[
        Literal["at_least_once", "exactly_once"],
        typer.Option("--delivery", help="exactly_once: results and offsets in transactions, for who reads committed records."),
    ] = "at_least_once",
    transaction_ms: Annotated[
        float,
        typer.Option("--transaction-ms", min=1, help="Length of a transaction: a result is seen up to so much later."),
    ] = 50.0,
    linger_ms: Annotated[
        float | None,
        typer.Option(
            "--linger-ms",
            min=0,
            help="How long a result waits for others; by itself 0 while few are unanswered, 1 while many are.",
        ),
    ] = None,
    late_ms: Annotated[
        float | None,
        typer.Option("--late-ms", min=0, help="Mark and count records that are older when they arrive; they are scored too."),
    ] = None,
    shadow: Annotated[
        str | None, typer.Option("--shadow", help="A second model, fraud@challenger: what it would say, beside the pool.")
    ] = None,
    shadow_output: Annotated[
        str, typer.Option("--shadow-output", help="With --shadow: topic of what both say.")
    ] = "shadow-scores",
    shadow_cpu: Annotated[
        float, typer.Option("--shadow-cpu", min=0.01, help="With --shadow: cores it may use; what is too much is left out.")
    ] = 0.25,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="Serve only models that are signed by this Ed25519 key (PEM).")
    ] = None,
    hung_seconds: Annotated[
        float, typer.Option("--hung-seconds", min=1, help="A worker that is silent for so long is killed and started again.")
    ] = 60.0,
    kernels: Kernels = None,
    transport: Annotated[
        Literal["auto", "native", "public"],
        typer.Option(
            "--transport", help="How Kafka is called: on librdkafka itself (native), or by the public calls of confluent-kafka."
        ),
    ] = "auto",
    tracking_uri: Tracking = None,
) -> None:
    """Score a topic until SIGTERM or Ctrl-C, then drain, flush and commit."""
    from saker.engine.kernels import mode_of
    from saker.engine.model import registry
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
    )
    uri = tracking_uri or config.tracking_uri()
    first = registry.locate_or_last(model, uri, public_key)
    if public_key is None and not model.endswith(".onnx"):
        logging.getLogger("saker").warning(
            "%s is served whoever registered it: --public-key serves signed models only (`saker models sign`)", first.name
        )
    second = None if shadow is None else lambda: registry.locate(shadow, uri, public_key)
    Pool(settings, first, lambda: registry.locate(model, uri, public_key), second).run()


@app.command(epilog="Example: `saker replay --generate 20000 --bootstrap-servers localhost:9092 --rate 2000`")
def replay(
    bootstrap_servers: Bootstrap,
    file: Annotated[Path | None, typer.Option("--file", help="A CSV file, or one JSON object a line.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="A folder with the IEEE-CIS files, streamed joined.")] = None,
    part: Annotated[Literal["train", "test"], typer.Option("--part", help="With --data: which of its files.")] = "train",
    generate: Annotated[int | None, typer.Option("--generate", min=1, help="So many generated transactions.")] = None,
    first: Annotated[int, typer.Option("--first", min=0, help="With --generate: number of the first one.")] = 0,
    seed: Seed = 0,
    topic: Annotated[str, typer.Option("--topic", help="Topic to send to.")] = "raw-transactions",
    rate: Annotated[float | None, typer.Option("--rate", min=0.001, help="Records a second; without it all.")] = None,
    key: Annotated[str, typer.Option("--key", help="Field that becomes the Kafka key.")] = "card1",
    label: Label = "isFraud",
    id_field: Identifier = "TransactionID",
    missing: Missing = None,
) -> None:
    """Send transactions at a fixed rate, whatever becomes of them (open loop); the label never leaves."""
    from saker.engine.kafka import replay

    if sum(source is not None for source in (file, data, generate)) != 1:
        raise typer.BadParameter("give one of --file, --data and --generate")
    total = 0  # of a folder nobody knows before it is read
    if file:
        records = file_records(file, id_field, label, missing or ())
        total, pairs = len(records), replay.keyed(records, key)
    elif data:
        pairs = replay.ahead(folder_records, data, part, label, key)
    else:
        total = generate or 0
        pairs = replay.ahead(generated, total, seed, first, label, key)
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


@app.command(epilog="Example: `saker score transactions.csv --model fraud.onnx -o scores.jsonl`")
def score(
    file: Annotated[Path, typer.Argument(help="A CSV file, or one JSON object a line.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scores, one JSON object a line.")],
    model: Annotated[str, typer.Option("--model", help="FILE.onnx, fraud@champion or fraud/7.")] = "fraud@champion",
    rejected: Annotated[Path | None, typer.Option("--rejected", help="Where rejections go, with reasons.")] = None,
    label: Label = "isFraud",
    missing: Missing = None,
    kernels: Kernels = None,
    tracking_uri: Tracking = None,
) -> None:
    """Score a file through the pipeline that serves, without Kafka."""
    import orjson

    from saker.engine.model import registry
    from saker.engine.model.active_model import ActiveModel
    from saker.engine.pipeline import score_batch

    located = registry.locate(model, tracking_uri or config.tracking_uri())
    active = ActiveModel.load(located.path, located.name, kernels)
    scores = blank = 0
    refused = []
    contract = active.session.contract
    lines = file_records(file, contract.id_field, label, missing or ())
    with output.open("wb") as out:
        for start in range(0, len(lines), 500):
            batch = score_batch(active, lines[start : start + 500])
            blank += active.decoder.drain_blank()
            if start == 0 and blank and blank == len(batch.results):
                raise SakerError(_none_of(file, contract, lines[0]))
            scores += len(batch.results)
            out.writelines(result + b"\n" for result in batch.results)
            refused += [
                {"line": start + r.index + 1, "code": r.reason, "field": r.field, "message": r.message}
                for r in batch.rejections
            ]
    if rejected is not None:
        rejected.write_bytes(b"".join(orjson.dumps(reason) + b"\n" for reason in refused))
    if is_table(file) and lines and (absent := _absent(contract, lines[0])):
        told = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")  # noqa: PLR2004 - a few
        typer.echo(f"  {file} has no column for {len(absent)} fields of the model: {told}", err=True)
    if blank:
        typer.echo(f"  {blank} of {scores} records have none of the model's fields", err=True)
    typer.echo(f"scored {scores}, rejected {len(refused)} with {active.name}; written to {output}")
    if not active.session.proven:
        typer.echo(f"  {active.name} is {UNPROVEN}")
    for reason in refused[:3]:
        typer.echo(printable(f"  record {reason['line']}: {reason['message']}"), err=True)


def _absent(contract: Contract, record: bytes) -> list[str]:
    """The fields of the contract that a record does not name."""
    import orjson

    try:
        names = orjson.loads(record).keys()
    except (ValueError, AttributeError):
        return []
    return sorted({feature.field for feature in contract.features} - names)


def _none_of(file: Path, contract: Contract, record: bytes) -> str:
    absent = set(_absent(contract, record))
    expected = ", ".join(feature.field for feature in contract.features[:5])
    return (
        f"{file}: its records have none of the model's {len(contract.features)} fields ({expected}, ...), so a score would say "
        f"nothing; the first begins with {printable(record[:80].decode(errors='replace'))}"
    ) + ("" if absent else ": all of them are empty there")
