"""Registered models and model files: list, show, roll back, sign, switch, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saker.commands.options import (
    Json,
    Tracking,
    models,
    tell,
)
from saker.engine import config
from saker.engine.onnx_metadata import UNPROVEN


@models.command("list", epilog="Example: `saker models list`")
def list_versions(as_json: Json = False, tracking_uri: Tracking = None) -> None:
    """What is registered, newest first."""
    from saker.export.registry import model_versions

    found = model_versions.versions(tracking_uri or config.tracking_uri())
    lines = [
        f"{config.MODEL}/{v['version']:5} {v['aliases']:22} {v['created']}  {v['promotion'] or v['parity']}" for v in found
    ]
    tell("\n".join(lines), found, as_json)


@models.command(epilog="Example: `saker models show 7`")
def show(
    version: Annotated[str, typer.Argument(help="Its number.")], as_json: Json = False, tracking_uri: Tracking = None
) -> None:
    """One version: its card, proof and promotion."""
    from saker.export.registry import model_versions

    uri = tracking_uri or config.tracking_uri()
    found = next((v for v in model_versions.versions(uri) if v["version"] == version), None)
    if found is None:
        raise model_versions.RegistryError(f"no {config.MODEL}/{version} in the registry at {uri}; see `saker models list`")
    told = "\n".join(f"{name:11} {value}" for name, value in found.items() if name != "description")
    tell(f"{told}\n\n{found['description']}", found, as_json)


@models.command(epilog="Example: `saker models rollback`, or `saker models rollback --to 6`")
def rollback(
    to: Annotated[str | None, typer.Option("--to", help="Version to make champion; without it the previous champion.")] = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Make an earlier version champion again."""
    from saker.export.registry import model_versions

    old, new = model_versions.roll_back(to, tracking_uri or config.tracking_uri())
    tell(f"{config.MODEL}/{new} is champion again, instead of {config.MODEL}/{old}", {"from": old, "to": new}, as_json)


@models.command(epilog="Example: `saker models sign fraud/7 --key signing.pem`, then `saker serve --public-key signing.pub`")
def sign(
    model: Annotated[str, typer.Argument(help="FILE.onnx, or fraud/7 in the registry.")],
    key: Annotated[Path, typer.Option("--key", help="Ed25519 private key: `openssl genpkey -algorithm ed25519`.")],
    tracking_uri: Tracking = None,
) -> None:
    """Sign a model, so that pools with --public-key serve it: FILE.onnx.sig, or a tag of the registered version."""
    from saker.engine.model import registry, signature

    uri = tracking_uri or config.tracking_uri()
    located = registry.locate(model, uri)
    signed = signature.sign(located.identity, located.sha256, key)
    if model.endswith(".onnx"):
        Path(f"{model}.sig").write_bytes(signed)
    else:
        from saker.export.registry import model_versions

        model_versions.tag(located.name, signature.TAG, signed.hex(), uri)
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

    from saker.engine.contract import read_contract
    from saker.engine.errors import ModelRefused
    from saker.engine.model.active_model import ActiveModel

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
    from saker.export import describe as description
    from saker.export import features_file

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
