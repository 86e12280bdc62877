"""What shows that scores are right: those that were produced, and those of this installation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import Bootstrap, Json, Label, Tracking, app, tell
from commands.records import file_records, lines
from engine import config
from engine.errors import SakerError

if TYPE_CHECKING:
    from export.verify import Model as VerifiedModel


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
        found = verification.verify(file_records(records, id_field, label), lines(scores), find)
    else:
        raise typer.BadParameter("give either --bootstrap-servers, or --records and --scores")
    if report is not None:
        report.write_text(found.to_json())
    typer.echo(found.table())
    if not found.passed:
        raise SakerError("what was produced is not what the models say")


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


@app.command(epilog="Example: `saker doctor --export --kind binary_sigmoid_2`")
def doctor(
    export_: Annotated[bool, typer.Option("--export", help="Export and prove one small model of every kind.")] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="With --export: only this kind.")] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option("--bootstrap-servers", help="HOST:PORT of a Kafka broker: whether its topics fit each other.")
    ] = None,
    source: Annotated[str, typer.Option("--input", help="Topic of raw transactions.")] = "raw-transactions",
    output: Annotated[str, typer.Option("--output", help="Topic of scores.")] = "scored-transactions",
    rejected: Annotated[str, typer.Option("--rejected", help="Topic of rejections.")] = "rejected-transactions",
) -> None:
    """Say what this installation is, and show that its parts agree; exit code 1 when they do not."""
    import importlib.metadata

    from engine import kernels

    for name in ("saker-onnx", "numpy", "onnxruntime", "confluent-kafka", "lightgbm", "onnx", "onnxmltools", "mlflow"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        typer.echo(f"{name} {version}")
    extension, reason = kernels.native(kernels.mode_of())
    typer.echo(f"native kernels {', '.join(extension.variants())}" if extension else f"native kernels not in use: {reason}")
    if bootstrap_servers is not None:
        _check_topics(bootstrap_servers, source, output, rejected)
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


def _check_topics(bootstrap_servers: str, *names: str) -> None:
    from engine import topics

    found, findings = topics.look(bootstrap_servers, *names)
    for topic in found:
        typer.echo(
            f"topic {topic.name}: partitions {topic.partitions}, replicas {topic.replicas}, "
            f"max.message.bytes {topic.max_message_bytes}, min.insync.replicas {topic.min_insync_replicas}, "
            f"retention.ms {topic.retention_ms}, message.timestamp.type {topic.timestamp_type}"
        )
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding.text}")
    if any(finding.severity == "error" for finding in findings):
        raise SakerError("the topics do not allow serving")


@app.command(epilog="Example: `saker drift --bootstrap-servers localhost:9092 --last 10000 --output drift`")
def drift(
    bootstrap_servers: Bootstrap,
    model: Annotated[str, typer.Option("--model", help="FILE.onnx, fraud@champion or fraud/7.")] = "fraud@champion",
    source: Annotated[str, typer.Option("--input", help="Topic of raw transactions.")] = "raw-transactions",
    output_topic: Annotated[str, typer.Option("--scores", help="Topic of scores.")] = "scored-transactions",
    last: Annotated[int, typer.Option("--last", min=100, help="So many of the newest scores, and their records.")] = 10_000,
    limit: Annotated[float, typer.Option("--limit", min=0, help="PSI above which a feature or the score has drifted.")] = 0.25,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for drift.json and drift.png.")] = None,
    evidently: Annotated[
        Path | None,
        typer.Option("--evidently", help="Evidently's HTML report, against the newest training rows."),
    ] = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Compare live records and scores with what the model was trained on; exit code 1 if something has drifted.

    Numbers are population stability indices (PSI) of the features and of the score.
    """
    from commands import watch
    from engine import registry
    from engine.contract import read_contract
    from training import drift as of_training

    located = registry.locate(model, tracking_uri or config.tracking_uri())
    contract = read_contract(located.path)
    newest = watch.read(bootstrap_servers, contract, source, output_topic, last)
    found = of_training.drift(contract, newest.matrix, newest.scores)
    moved = of_training.drifted(found, limit)
    features = [asdict(one) for one in found]
    told = {
        "model": located.name,
        "records": len(newest.matrix),
        "scores": len(newest.scores),
        "limit": limit,
        "drifted": [one.name for one in moved],
        "features": features,
    }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "drift.json").write_text(json.dumps(told, indent=1) + "\n")
        (output / "drift.png").write_bytes(of_training.plot(found, limit))
    if evidently is not None:
        from commands.evidently import write_report

        write_report(located.name, contract, newest.matrix, evidently, tracking_uri or config.tracking_uri())
    lines = [f"{len(newest.matrix):,} records, {len(newest.scores):,} scores against {located.name}:"]
    for one in found[:11]:
        mark = "DRIFTED" if one in moved else "" if one.judged else "not judged"
        missing = f"missing {one.missing:.1%}, then {one.missing_then:.1%}"
        lines.append(f"  {one.name:20} PSI {one.psi:7.4f}  {missing:32} {mark}".rstrip())
    typer.echo("\n".join(lines), err=as_json)
    if moved:
        raise SakerError(f"drifted (PSI above {limit:g}): {', '.join(f'{one.name} {one.psi:.2f}' for one in moved[:10])}")
    tell(f"nothing has drifted (PSI at most {limit:g})", {**told, "features": features[:20]}, as_json)
