"""`saker train`, `saker export` and `saker promote`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from saker.commands.options import (
    MODELS,
    ON_DATA,
    ON_MODEL,
    ON_OUTPUT,
    Data,
    From,
    Generate,
    Identifier,
    Json,
    Label,
    Missing,
    Seed,
    Time,
    Tracking,
    Until,
    app,
    tell,
)
from saker.commands.progress import steps
from saker.engine import config


@app.command(rich_help_panel=MODELS, epilog="Example: `saker train --data cards.csv --label Class --time Time --id ID`")
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
        typer.Option(
            min=0,
            max=1,
            help="Score at which `is_fraud` becomes true (default: that of 1 % false positives).",
            rich_help_panel="Training",
        ),
    ] = None,
    missing: Missing = None,
    as_text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="Column to read as a category although its values look like numbers. Repeatable.",
            rich_help_panel=ON_DATA,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Maximum number of trees; training stops early.", rich_help_panel="Training")
    ] = 300,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"],
        typer.Option("--time-unit", help="Unit of --time where it is a number.", rich_help_panel=ON_DATA),
    ] = "s",
    velocity: Annotated[
        Path | None,
        typer.Option("--velocity", help="TOML file of velocity features.", rich_help_panel="Training"),
    ] = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Train a LightGBM model and log it to MLflow.

    The same data, window and seed give the same model. Without --data, --from and --until select a window of the
    generated transactions.
    """
    from saker.commands.records import labelled_table
    from saker.export.features_file import read_velocity
    from saker.training import evaluate, fit

    settings = fit.Settings(
        label=label,
        time=time,
        id_field=id_field,
        threshold=threshold,
        seed=seed,
        rounds=rounds,
        missing=tuple(missing or ()),
        text=tuple(as_text or ()),
        time_unit=time_unit,
        velocity=() if velocity is None else read_velocity(velocity),
    )
    with steps("train") as say:
        table, records, source = labelled_table(data, generate, seed, settings, (start, end))
        trained = fit.train(table, settings, say, records)
        from saker.training import track  # mlflow takes seconds to load: not before the data is known to be good

        run = track.log_run(trained, settings, source, tracking_uri or config.tracking_uri())
    figures = ", ".join(f"{name} {trained.metrics[name]:.4f}" for name in evaluate.FIGURES)
    text = f"run {run}: {figures}, threshold {trained.contract.threshold:.4f}\nnext: saker export --run latest"
    tell(text, {"run": run, "threshold": trained.contract.threshold, **trained.metrics}, as_json)


@app.command(
    rich_help_panel=MODELS,
    epilog="Example: `saker export --run latest -o fraud.onnx`, or `saker export --booster model.txt -o model.onnx`",
)
def export(
    run: Annotated[str, typer.Option("--run", help="MLflow run: its id, or `latest`.", rich_help_panel=ON_MODEL)] = "latest",
    booster: Annotated[
        Path | None,
        typer.Option(
            "--booster", help="LightGBM model file to export instead of a run; it is not registered.", rich_help_panel=ON_MODEL
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", "--out", help="File for the ONNX model.", rich_help_panel=ON_OUTPUT)
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features", help="With --booster: features file, from `saker models describe`.", rich_help_panel=ON_MODEL
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="With --booster: score at which `is_fraud` becomes true (default: 0.5).", rich_help_panel=ON_MODEL),
    ] = None,
    id_field: Annotated[
        str | None, typer.Option("--id", help="With --booster: field that identifies a transaction.", rich_help_panel=ON_MODEL)
    ] = None,
    second_opinion: Annotated[
        bool,
        typer.Option(
            "--second-opinion", help="Also convert with onnxmltools and report the differences.", rich_help_panel=ON_OUTPUT
        ),
    ] = False,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Convert a model to ONNX, prove that it gives the same scores, and register it as challenger."""
    if booster is not None:
        if output is None:
            raise typer.BadParameter("--booster needs --output: the ONNX file to write")
        from saker.export import external_models, features_file

        contract = None if features is None else features_file.read_features(features)
        given = {"threshold": threshold, "id_field": id_field}
        with steps("export") as say:
            changes = {key: value for key, value in given.items() if value is not None}
            proven = external_models.export_file(booster, contract, say, compare_onnxmltools=second_opinion, **changes)
            output.write_bytes(proven.data)
        typer.echo(proven.report.table())
        typer.echo(f"next: saker score FILE --model {output} -o scores.jsonl")
        return
    from saker.export.registry import model_versions, publish

    with steps("export") as say:
        uri = tracking_uri or config.tracking_uri()
        exported = publish.export_run(run, uri, say, compare_onnxmltools=second_opinion)
        if output is not None:
            output.write_bytes(exported.model.SerializeToString())
            say(f"written to {output}")
    lines = [f"{config.MODEL}/{exported.version} is {config.MODEL}@{model_versions.CHALLENGER}: {exported.report}"]
    if exported.report.second_opinion:
        lines.append(f"onnxmltools: {exported.report.second_opinion}")
    told = {"version": exported.version, "parity": str(exported.report)}
    tell("\n".join([*lines, "next: saker promote"]), told, as_json)


@app.command(rich_help_panel=MODELS, epilog="Example: `saker promote --data newest.csv --label Class`")
def promote(
    data: Data = None,
    label: Label = "isFraud",
    time: Annotated[
        str | None,
        typer.Option("--time", help="Column with the time in --data (default: as in training).", rich_help_panel=ON_DATA),
    ] = None,
    id_field: Identifier = "TransactionID",
    missing: Missing = None,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", help="Minimum gain in ROC AUC; the whole 95 % interval must be above it.", rich_help_panel="Decision"
        ),
    ] = 0.0,
    floor: Annotated[
        float, typer.Option("--floor", min=0, max=1, help="Minimum ROC AUC of a first champion.", rich_help_panel="Decision")
    ] = 0.7,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Promote the challenger to champion if it is better on labelled rows that neither model was trained on.

    Without --data, saker uses the newest rows of the challenger's own training data. It stores report, plots and reason in
    MLflow.
    """
    from saker.commands.promotion import decide

    uri = tracking_uri or config.tracking_uri()
    decision = decide(data, label, time, id_field, (margin, floor), uri, missing or ())
    tell(decision.why, {"promoted": decision.promoted, "why": decision.why, **decision.figures}, as_json)
