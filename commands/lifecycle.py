"""The life of a model: train, export, promote, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Data, From, Generate, Identifier, Json, Label, Seed, Time, Tracking, Until, app, models, tell
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
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Trees at most; it stops early.")] = 300,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Train a LightGBM model and log it to MLflow.

    The same data, window and seed give the same model. Without --data, --from and --until take that part of the generated
    stream, however long.
    """
    from commands.records import labelled_table
    from training import evaluate, fit

    settings = fit.Settings(label=label, time=time, id_field=id_field, threshold=threshold, seed=seed, rounds=rounds)
    with steps("train") as say:
        table, source = labelled_table(data, generate, seed, settings, (start, end))
        trained = fit.train(table, settings, say)
        from training import track  # mlflow takes seconds to load: not before the data is known to be good

        run = track.log_run(trained, settings, source, tracking_uri or config.tracking_uri())
    figures = ", ".join(f"{name} {trained.metrics[name]:.4f}" for name in evaluate.FIGURES)
    text = f"run {run}: {figures}, threshold {trained.contract.threshold:.4f}\nnext: saker export --run latest"
    tell(text, {"run": run, "threshold": trained.contract.threshold, **trained.metrics}, as_json)


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
    as_json: Json = False,
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
    lines = [f"{config.MODEL}/{exported.version} is {config.MODEL}@{publish.CHALLENGER}: {exported.report}"]
    if exported.report.second_opinion:
        lines.append(f"beside it, {exported.report.second_opinion}")
    told = {"version": exported.version, "parity": str(exported.report)}
    tell("\n".join([*lines, "next: saker promote"]), told, as_json)


@app.command(epilog="Example: `saker promote --data newest.csv --label Class`")
def promote(
    data: Data = None,
    label: Label = "isFraud",
    time: Annotated[
        str | None, typer.Option("--time", help="With --data: column with the time; without it as in training.")
    ] = None,
    id_field: Identifier = "TransactionID",
    margin: Annotated[float, typer.Option("--margin", help="ROC AUC that must be gained; the whole interval above it.")] = 0.0,
    floor: Annotated[float, typer.Option("--floor", min=0, max=1, help="ROC AUC that a first champion needs.")] = 0.7,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Make the challenger champion when it is better on fresh labelled rows, which neither of the two was trained on.

    Without --data these are the newest rows of its own training data. Report, plots and reasons go to MLflow either way.
    """
    from commands.promotion import decide

    decision = decide(data, label, time, id_field, (margin, floor), tracking_uri or config.tracking_uri())
    tell(decision.why, {"promoted": decision.promoted, "why": decision.why, **decision.figures}, as_json)


@models.command("list", epilog="Example: `saker models list`")
def list_versions(as_json: Json = False, tracking_uri: Tracking = None) -> None:
    """What is registered, newest first."""
    from export import publish

    found = publish.versions(tracking_uri or config.tracking_uri())
    lines = [
        f"{config.MODEL}/{v['version']:5} {v['aliases']:22} {v['created']}  {v['promotion'] or v['parity']}" for v in found
    ]
    tell("\n".join(lines), found, as_json)


@models.command(epilog="Example: `saker models show 7`")
def show(
    version: Annotated[str, typer.Argument(help="Its number.")], as_json: Json = False, tracking_uri: Tracking = None
) -> None:
    """One version: its card, proof and promotion."""
    from export import publish

    uri = tracking_uri or config.tracking_uri()
    found = next((v for v in publish.versions(uri) if v["version"] == version), None)
    if found is None:
        raise publish.RegistryError(f"no {config.MODEL}/{version} in the registry at {uri}; see `saker models list`")
    told = "\n".join(f"{name:11} {value}" for name, value in found.items() if name != "description")
    tell(f"{told}\n\n{found['description']}", found, as_json)


@models.command(epilog="Example: `saker models rollback`, or `saker models rollback --to 6`")
def rollback(
    to: Annotated[str | None, typer.Option("--to", help="Version to make champion; without it the one before.")] = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Make an earlier version champion again."""
    from export import publish

    old, new = publish.roll_back(to, tracking_uri or config.tracking_uri())
    tell(f"{config.MODEL}/{new} is champion again, instead of {config.MODEL}/{old}", {"from": old, "to": new}, as_json)


@models.command(epilog="Example: `saker models sign fraud/7 --key signing.pem`, then `saker serve --public-key signing.pub`")
def sign(
    model: Annotated[str, typer.Argument(help="FILE.onnx, or fraud/7 in the registry.")],
    key: Annotated[Path, typer.Option("--key", help="Ed25519 private key: `openssl genpkey -algorithm ed25519`.")],
    tracking_uri: Tracking = None,
) -> None:
    """Sign a model, so that pools with --public-key serve it: FILE.onnx.sig, or a tag of the registered version."""
    from engine import registry, signature

    uri = tracking_uri or config.tracking_uri()
    located = registry.locate(model, uri)
    signed = signature.sign(located.path.read_bytes(), key)
    if model.endswith(".onnx"):
        Path(f"{model}.sig").write_bytes(signed)
    else:
        from export import publish

        publish.tag(located.name, signature.TAG, signed.hex(), uri)
    typer.echo(f"signed {located.name} (SHA-256 {located.sha256[:8]})")


@models.command(epilog="Example: `saker models switch new.onnx --over fraud.onnx`")
def switch(
    new: Annotated[Path, typer.Argument(help="The ONNX file to serve from now on.")],
    over: Annotated[Path, typer.Option("--over", help="The file that pools follow: `saker serve --model FILE.onnx`.")],
) -> None:
    """Put a model in the place of the one that pools follow by its file: proven here first, and never half written there.

    Where they follow the registry, `saker promote` and `saker models rollback` do that.
    """
    import os
    import shutil
    import tempfile

    from engine.contract import read_contract
    from engine.errors import ModelRefused
    from engine.pipeline import ActiveModel

    wanted = ActiveModel.load(new, new.stem)
    if over.exists() and (now := read_contract(over).id_field) != (then := wanted.session.contract.id_field):
        raise ModelRefused(f"{new} identifies a transaction by {then}, {over} by {now}: its readers would not find the results")
    with tempfile.TemporaryDirectory(dir=over.parent) as scratch:
        for ending in (".sig", ""):  # the model last: with it they change over
            if (source := Path(f"{new}{ending}")).exists():
                copy = Path(shutil.copyfile(source, Path(scratch) / over.name))
                with copy.open("rb") as written:
                    os.fsync(written.fileno())
                copy.replace(f"{over}{ending}")
    typer.echo(f"{over} is {new} now (SHA-256 {wanted.sha256[:8]}); pools change over at their next look")


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
    reason = f", since {session.backend_reason}" if session.backend_reason else ""
    typer.echo(f"  scored by {session.backend}{reason}")
    typer.echo(f"next: saker score FILE --model {file} -o scores.jsonl")
