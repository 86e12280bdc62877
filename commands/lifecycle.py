"""The life of a model: train, export, promote, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Data, From, Generate, Identifier, Label, Seed, Time, Tracking, Until, app, models
from commands.progress import steps
from engine import config
from engine.contract import UNPROVEN


@app.command(epilog="Example: `saker train --data cards.csv --label Class --time Time --id ID`")
def train(
    data: Data = None,
    generate: Generate = 50_000,
    label: Label = "isFraud",
    time: Time = "TransactionDT",
    id_field: Identifier = "TransactionID",
    seed: Seed = 0,
    start: From = None,
    end: Until = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Score from which is_fraud is true; without it 1 % false positives."),
    ] = None,
    tracking_uri: Tracking = None,
) -> None:
    """Train a LightGBM model and log it to MLflow.

    The same data, window and seed give the same model. Without --data, --from and --until take that part of the generated
    stream, however long.
    """
    from commands.records import labelled_table
    from training import evaluate, fit

    settings = fit.Settings(label=label, time=time, id_field=id_field, threshold=threshold, seed=seed)
    with steps("train") as say:
        table, source = labelled_table(data, generate, seed, settings, (start, end))
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
        with steps("export") as say:
            changes = {key: value for key, value in given.items() if value is not None}
            proven = foreign.export_file(booster, contract, say, compare_onnxmltools=second_opinion, **changes)
            output.write_bytes(proven.data)
        typer.echo(proven.report.table())
        typer.echo(f"next: saker score FILE --model {output} -o scores.jsonl")
        return
    from export import publish

    with steps("export") as say:
        uri = tracking_uri or config.tracking_uri()
        exported = publish.export_run(run, uri, say, compare_onnxmltools=second_opinion)
        if output is not None:
            output.write_bytes(exported.model.SerializeToString())
            say(f"written to {output}")
    typer.echo(f"{config.MODEL}/{exported.version} is {config.MODEL}@{publish.CHALLENGER}: {exported.report}")
    if exported.report.second_opinion:
        typer.echo(f"beside it, {exported.report.second_opinion}")
    typer.echo("next: saker promote")


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
        from commands.records import read_table
        from training import tables

        table = read_table(data, id_field)
        tables.require(table, label, "--label")
        records, labels = tables.to_records(table.drop(columns=[label])), table[label].tolist()
    _, why = publish.promote(records, labels, uri)
    typer.echo(why)


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
    typer.echo(f"{file}: contract with {width} features written; it is {UNPROVEN}")
    typer.echo(f"next: saker score FILE --model {file} -o scores.jsonl")
