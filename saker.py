"""The command line: one function a command. Heavy imports stand inside it, so that `saker --help` is quick."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from engine import config
from engine.errors import SakerError

if TYPE_CHECKING:
    from export.verify import Model as VerifiedModel

app = typer.Typer(
    help="Real-time fraud scoring on Kafka: train, export, promote, serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help through rich takes 0.2 s longer
)

Data = Annotated[Path | None, typer.Option("--data", help="A labelled CSV file with a header line.")]
Generate = Annotated[int, typer.Option("--generate", min=1, help="Without --data: so many generated transactions.")]
Label = Annotated[str, typer.Option("--label", help="Column with 1 for fraud and 0 for legitimate.")]
Time = Annotated[str, typer.Option("--time", help="Column with the time in seconds; rows are split by it.")]
Identifier = Annotated[str, typer.Option("--id", help="Field that identifies a transaction.")]
Seed = Annotated[int, typer.Option("--seed", help="The same data and seed give the same model.")]
Tracking = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow; without it MLFLOW_TRACKING_URI, or sqlite:///mlflow.db here."),
]
models = typer.Typer(help="Models: what they expect and promise.", no_args_is_help=True)
app.add_typer(models, name="models")

Bootstrap = Annotated[str, typer.Option("--bootstrap-servers", help="HOST:PORT of a Kafka broker.")]


def main() -> None:
    """Exit with 0 when done, 1 when it failed, with one line that says why, 2 for wrong usage; 130 after Ctrl-C."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("saker").setLevel(logging.INFO)
    try:
        app()
    except SakerError as error:
        typer.echo(f"saker: {error}", err=True)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        extras = "second-opinion" if error.name == "onnxmltools" else "train,local"
        typer.echo(f"saker: this command needs {error.name}: install saker-onnx[{extras}]", err=True)
        raise SystemExit(1) from None


@app.command(epilog="Example: `saker train --data cards.csv --label Class --time Time --id ID`")
def train(
    data: Data = None,
    generate: Generate = 50_000,
    label: Label = "isFraud",
    time: Time = "TransactionDT",
    id_field: Identifier = "TransactionID",
    seed: Seed = 0,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Score from which is_fraud is true; without it 1 % false positives."),
    ] = None,
    tracking_uri: Tracking = None,
) -> None:
    """Train a LightGBM model and log it to MLflow."""
    from training import evaluate, fit, tables

    settings = fit.Settings(label=label, time=time, id_field=id_field, threshold=threshold, seed=seed)
    with _steps("train") as say:
        if data is not None:
            table, source = tables.read_csv(data, id_field), {"data": str(data)}
        else:
            from training import synthetic

            table, source = synthetic.frame(generate, seed), {"generate": str(generate)}
        trained = fit.train(table, settings, say)
        from training import track  # mlflow takes seconds to load: not before the data is known to be good

        run = track.log_run(trained, settings, source, tracking_uri or config.tracking_uri())
    figures = ", ".join(f"{name} {trained.metrics[name]:.4f}" for name in evaluate.FIGURES)
    typer.echo(f"run {run}: {figures}, threshold {trained.contract.threshold:.4f}")
    typer.echo("next: saker export --run latest")


@app.command(epilog="Example: `saker export --run latest -o fraud.onnx`, or `saker export --booster model.txt -o model.onnx`")
def export(
    run: Annotated[str, typer.Option("--run", help="A run's id, or latest.")] = "latest",
    booster: Annotated[
        Path | None, typer.Option("--booster", help="A LightGBM model file instead of a run; nothing is registered.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", "--out", help="Write the ONNX file here.")] = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="With --booster: FEATURES.toml, from `saker models describe`.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="With --booster: score from which is_fraud is true; otherwise 0.5.")
    ] = None,
    id_field: Annotated[str | None, typer.Option("--id", help="With --booster: field that identifies a transaction.")] = None,
    second_opinion: Annotated[
        bool, typer.Option("--second-opinion", help="Tell what onnxmltools makes of the same model.")
    ] = False,
    tracking_uri: Tracking = None,
) -> None:
    """Convert a run's model to ONNX, prove that it scores the same, and register it as challenger."""
    if booster is not None:
        if output is None:
            raise typer.BadParameter("--booster needs --output")
        from export import features_file, foreign

        contract = None if features is None else features_file.read_features(features)
        given = {"threshold": threshold, "id_field": id_field}
        with _steps("export") as say:
            changes = {key: value for key, value in given.items() if value is not None}
            proven = foreign.export_file(booster, contract, say, compare_onnxmltools=second_opinion, **changes)
            output.write_bytes(proven.data)
        typer.echo(proven.report.table())
        typer.echo(f"next: saker score FILE --model {output} -o scores.jsonl")
        return
    from export import publish

    with _steps("export") as say:
        uri = tracking_uri or config.tracking_uri()
        exported = publish.export_run(run, uri, say, compare_onnxmltools=second_opinion)
        if output is not None:
            output.write_bytes(exported.model.SerializeToString())
            say(f"written to {output}")
    typer.echo(f"{config.MODEL}/{exported.version} is {config.MODEL}@{publish.CHALLENGER}: {exported.report}")
    if exported.report.second_opinion:
        typer.echo(f"beside it, {exported.report.second_opinion}")
    typer.echo("next: saker promote")


@models.command(epilog="Example: `saker models describe net.onnx > features.toml`, then with `--features features.toml`")
def describe(
    file: Annotated[Path, typer.Argument(help="An ONNX file, or a LightGBM model file.")],
    features: Annotated[
        Path | None, typer.Option("--features", help="FEATURES.toml; without it one to start from is printed.")
    ] = None,
) -> None:
    """Write into an ONNX file of other origin what its columns are, so that it can be served."""
    from export import describe as description
    from export import features_file

    if features is None:
        contract, notes = description.template(file)
        typer.echo(features_file.write_features(contract, notes), nl=False)
        return
    session = description.describe(file, features_file.read_features(features))
    width = len(session.contract.features)
    typer.echo(f"{file}: contract with {width} features written; {_origin(session.proven)}")
    typer.echo(f"next: saker score FILE --model {file} -o scores.jsonl")


def _origin(proven: bool) -> str:
    return "proven tree by tree" if proven else "of other origin: served without the proof of its trees"


@app.command(epilog="Example: `saker promote --data newest.csv --label Class`")
def promote(
    data: Data = None,
    label: Label = "isFraud",
    id_field: Identifier = "TransactionID",
    tracking_uri: Tracking = None,
) -> None:
    """Make the challenger champion when it is better on the newest labelled rows.

    Without --data these are the newest rows of its own training data, which it was not trained on.
    """
    from export import publish

    uri = tracking_uri or config.tracking_uri()
    if data is None:
        records, labels = publish.newest_rows(uri)
    else:
        from training import tables

        table = tables.read_csv(data, id_field)
        tables.require(table, label, "--label")
        records, labels = tables.to_records(table.drop(columns=[label])), table[label].tolist()
    _, why = publish.promote(records, labels, uri)
    typer.echo(why)


@app.command(epilog="Example: `saker serve --model fraud@champion --bootstrap-servers localhost:9092 --workers 4`")
def serve(
    model: Annotated[str, typer.Option("--model", help="FILE.onnx, fraud@champion or fraud/7.")],
    bootstrap_servers: Bootstrap,
    source: Annotated[str, typer.Option("--input", help="Topic of raw transactions.")] = "raw-transactions",
    output: Annotated[str, typer.Option("--output", help="Topic of scores.")] = "scored-transactions",
    rejected: Annotated[str, typer.Option("--rejected", help="Topic of rejections.")] = "rejected-transactions",
    group: Annotated[str, typer.Option("--group", help="Consumer group.")] = "fraud-scorers",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes.")] = 1,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Port of /metrics on 127.0.0.1.")] = 8000,
    instance: Annotated[str | None, typer.Option("--instance", help="Name of this pool in its group.")] = None,
    tracking_uri: Tracking = None,
) -> None:
    """Score a topic until SIGTERM or Ctrl-C, then drain, flush and commit."""
    from engine import registry
    from engine.pool import Pool

    located = registry.locate(model, tracking_uri or config.tracking_uri())
    settings = config.ServeSettings(
        bootstrap_servers=bootstrap_servers,
        input=source,
        output=output,
        rejected=rejected,
        group=group,
        workers=workers,
        metrics_port=metrics_port,
        instance=instance or platform.node(),
    )
    Pool(settings, located).run()


@app.command(epilog="Example: `saker replay --generate 20000 --bootstrap-servers localhost:9092 --rate 2000`")
def replay(
    bootstrap_servers: Bootstrap,
    file: Annotated[Path | None, typer.Option("--file", help="A CSV file, or one JSON object a line.")] = None,
    generate: Annotated[int | None, typer.Option("--generate", min=1, help="So many generated transactions.")] = None,
    first: Annotated[int, typer.Option("--first", min=0, help="With --generate: number of the first one.")] = 0,
    seed: Seed = 0,
    topic: Annotated[str, typer.Option("--topic", help="Topic to send to.")] = "raw-transactions",
    rate: Annotated[float | None, typer.Option("--rate", min=0.001, help="Records a second; without it all.")] = None,
    key: Annotated[str, typer.Option("--key", help="Field that becomes the Kafka key.")] = "card1",
    label: Label = "isFraud",
    id_field: Identifier = "TransactionID",
) -> None:
    """Send transactions at a fixed rate, whatever becomes of them (open loop); the label never leaves."""
    from bench import load

    if (file is None) == (generate is None):
        raise typer.BadParameter("give either --file or --generate")
    if file:
        records = _file_records(file, id_field, label)
        total, pairs = len(records), load.keyed(records, key)
    else:
        total = generate or 0
        pairs = load.ahead(_generated, total, seed, first, label, key)
    with _steps("replay") as say:
        told = load.replay(
            pairs,
            bootstrap_servers=bootstrap_servers,
            topic=topic,
            rate=rate,
            report=lambda sent: say(
                f"{sent.sent:,} sent, {sent.acknowledged:,} acknowledged",
                sent.acknowledged / max(total, 1),
            ),
        )
    typer.echo(
        f"sent {told.sent}, acknowledged {told.acknowledged} in {told.seconds:.1f} s "
        f"({told.sent / told.seconds:,.0f} records/s, at most {told.latest_seconds * 1000:.0f} ms behind schedule)",
    )
    if told.acknowledged != told.sent:
        raise load.LoadError(f"{told.sent - told.acknowledged} records were not acknowledged: {told.errors[:1]}")


@app.command(epilog="Example: `saker score transactions.csv --model fraud.onnx -o scores.jsonl`")
def score(
    file: Annotated[Path, typer.Argument(help="A CSV file, or one JSON object a line.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scores, one JSON object a line.")],
    model: Annotated[str, typer.Option("--model", help="FILE.onnx, fraud@champion or fraud/7.")] = "fraud@champion",
    rejected: Annotated[Path | None, typer.Option("--rejected", help="Where rejections go, with reasons.")] = None,
    label: Label = "isFraud",
    tracking_uri: Tracking = None,
) -> None:
    """Score a file through the pipeline that serves, without Kafka."""
    import orjson

    from engine import registry
    from engine.pipeline import ActiveModel, score_batch

    located = registry.locate(model, tracking_uri or config.tracking_uri())
    active = ActiveModel.load(located.path, located.name)
    scores = 0
    refused = []
    with output.open("wb") as out:
        lines = _file_records(file, active.session.contract.id_field, label)
        for start in range(0, len(lines), 500):
            batch = score_batch(active, lines[start : start + 500])
            scores += len(batch.results)
            out.writelines(result + b"\n" for result in batch.results)
            refused += [
                {"line": start + r.index + 1, "code": r.reason, "field": r.field, "message": r.message}
                for r in batch.rejections
            ]
    if rejected is not None:
        rejected.write_bytes(b"".join(orjson.dumps(reason) + b"\n" for reason in refused))
    typer.echo(f"scored {scores}, rejected {len(refused)} with {active.name}; written to {output}")
    if not active.session.proven:
        typer.echo(f"  {active.name} is {_origin(proven=False)}")
    for reason in refused[:3]:
        typer.echo(f"  record {reason['line']}: {reason['message']}", err=True)


@app.command(epilog="Example: `saker verify --bootstrap-servers localhost:9092 --last 100000`")
def verify(
    bootstrap_servers: Annotated[str | None, typer.Option("--bootstrap-servers", help="Read both topics there.")] = None,
    source: Annotated[str, typer.Option("--input", help="Topic of raw transactions.")] = "raw-transactions",
    output: Annotated[str, typer.Option("--output", help="Topic of scores.")] = "scored-transactions",
    last: Annotated[int, typer.Option("--last", min=1, help="So many of the newest scores.")] = 100_000,
    records: Annotated[Path | None, typer.Option("--records", help="A file of records instead of topics.")] = None,
    scores: Annotated[Path | None, typer.Option("--scores", help="With --records: their scores, JSON lines.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="FILE.onnx that gave the scores, if they name no registered version.")
    ] = None,
    booster: Annotated[Path | None, typer.Option("--booster", help="With --model: its LightGBM model file.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write what was found as JSON.")] = None,
    label: Label = "isFraud",
    id_field: Annotated[str, typer.Option("--id", help="Identifier in a CSV file of records.")] = "TransactionID",
    tracking_uri: Tracking = None,
) -> None:
    """Make scores that were produced again, by the model that each names and by its Booster; exit code 1 if any differs."""
    from export import verify as verification

    find = _finder(model, booster, tracking_uri or config.tracking_uri())
    if bootstrap_servers is not None and records is None and scores is None:
        from bench.collect import read_newest

        taken, results = read_newest(bootstrap_servers, source, output, last)
        positions = [(record.partition, record.offset) for record in taken]
        found = verification.verify([r.value for r in taken], [r.value for r in results], find, positions)
    elif bootstrap_servers is None and records is not None and scores is not None:
        found = verification.verify(_file_records(records, id_field, label), _lines(scores), find)
    else:
        raise typer.BadParameter("give either --bootstrap-servers, or --records and --scores")
    if report is not None:
        report.write_text(found.to_json())
    typer.echo(found.table())
    if not found.passed:
        raise SakerError("what was produced is not what the models say")


@app.command(epilog="Example: `saker doctor --export --kind binary_sigmoid_2`")
def doctor(
    export_: Annotated[bool, typer.Option("--export", help="Export and prove one small model of every kind.")] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="With --export: only this kind.")] = None,
) -> None:
    """Say what this installation is, and show that its parts agree; exit code 1 when they do not."""
    import importlib.metadata

    for name in ("saker-onnx", "numpy", "onnxruntime", "confluent-kafka", "lightgbm", "onnx", "onnxmltools", "mlflow"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        typer.echo(f"{name} {version}")
    if not export_:
        return
    from bench.kinds import KINDS
    from bench.second_opinion import measure

    if unknown := sorted(set(kind or ()) - set(KINDS)):
        raise typer.BadParameter(f"no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    wrong = []
    for name in kind or KINDS:
        row = measure(name)
        typer.echo(str(row))
        wrong += [] if row.passed else [name]
    if wrong:
        raise SakerError(f"the export differs from LightGBM for {', '.join(wrong)}")


@app.command(epilog="Example: `saker stack`")
def stack() -> None:
    """Run a local Kafka and MLflow in the foreground until Ctrl-C."""
    import signal
    import threading

    from deploy.local.stack import local_stack

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    typer.echo("starting Kafka and MLflow ...")
    with local_stack() as running:
        typer.echo(
            f"Kafka   {running.bootstrap_servers}\n"
            f"MLflow  {running.tracking_uri}\n\n"
            "In another terminal:\n"
            f"  export MLFLOW_TRACKING_URI={running.tracking_uri}\n"
            "  saker train && saker export && saker promote\n"
            f"  saker serve --model fraud@champion --bootstrap-servers {running.bootstrap_servers} --workers 2\n"
            "  saker replay --generate 20000 --first 50000 --rate 1000 "
            f"--bootstrap-servers {running.bootstrap_servers}\n"
            "\nCtrl-C stops both and removes their data.",
        )
        stop.wait()


@app.command(epilog="Example: `saker demo --output demo-report`")
def demo(
    output: Annotated[Path, typer.Option("--output", help="Folder for the report.")] = Path("demo-report"),
) -> None:
    """Run the whole line on a local stack: train, export, register, promote, serve, replay, check every score."""
    from bench.demo import run

    run(output, typer.echo)


def _generated(count: int, seed: int, first: int, label: str, key: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    from bench import load
    from training import synthetic, tables

    for frame in synthetic.frames(count, seed, first):
        yield from load.keyed(tables.to_records(frame.drop(columns=[label], errors="ignore")), key)


def _file_records(file: Path, id_field: str, label: str) -> list[bytes]:
    """Raw records of a CSV file, or of a file with one JSON object a line; without the label."""
    if file.suffix.lower() == ".csv":
        from training import tables

        return tables.to_records(tables.read_csv(file, id_field).drop(columns=[label], errors="ignore"))
    return [_without(label, line) for line in _lines(file)]


def _lines(file: Path) -> list[bytes]:
    if not file.is_file():
        raise SakerError(f"no such file: {file}")
    return file.read_bytes().splitlines()


def _finder(model: Path | None, booster: Path | None, tracking_uri: str) -> Callable[[str], VerifiedModel]:
    """What finds the model that a result names: the registry, or this one file."""
    from engine import registry
    from engine.session import open_session
    from export import verify

    if model is None:
        from export import publish

        def find(name: str) -> VerifiedModel:
            version = registry.find_version(name, tracking_uri)
            session = open_session(registry.fetch(version, tracking_uri).path)
            try:
                return verify.Model(session, publish.booster_of(version, tracking_uri))
            except publish.RegistryError:  # its run was deleted, or another tool registered it
                return verify.Model(session, None)

        return find
    from export import foreign

    located = registry.locate(str(model), tracking_uri)
    only = verify.Model(open_session(located.path), None if booster is None else foreign.open_model_file(booster))

    def this_one(name: str) -> VerifiedModel:
        if name != located.name:
            raise verify.NotVerifiable(f"there are scores of {name}, and --model is {located.name}")
        return only

    return this_one


def _without(label: str, line: bytes) -> bytes:
    """The line as it is, unless it is an object with this field."""
    if label.encode() not in line:
        return line
    import orjson

    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    return orjson.dumps({k: v for k, v in record.items() if k != label}) if isinstance(record, dict) else line


class _Say(Protocol):
    """Takes what a command is doing and, where it is known, which part of it is done."""

    def __call__(self, text: str, part: float | None = None) -> None: ...


@contextmanager
def _steps(name: str) -> Iterator[_Say]:
    """Where a command says how far it is: a progress bar on a terminal, plain lines otherwise."""
    if not sys.stderr.isatty():
        yield lambda text, part=None: typer.echo(f"{name}: {text}", err=True)  # noqa: ARG005 - a bar needs it
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(name), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def say(text: str, part: float | None = None) -> None:
            progress.update(task, description=text, total=None if part is None else 1.0, completed=part)

        yield say


if __name__ == "__main__":
    main()
