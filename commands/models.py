"""`saker models`: registered models and model files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saker.commands.options import ON_RECORDS, EnvelopeName, Json, MessageName, Tracking, models, tell
from saker.engine import config
from saker.engine.onnx_metadata import UNPROVEN

if TYPE_CHECKING:
    from saker.engine.contract import Contract


@models.command("list", epilog="Example: `saker models list`")
def list_versions(as_json: Json = False, tracking_uri: Tracking = None) -> None:
    """List the registered versions, newest first."""
    from saker.export.registry import model_versions

    found = model_versions.versions(tracking_uri or config.tracking_uri())
    lines = [
        f"{config.MODEL}/{v['version']:5} {v['aliases']:22} {v['created']}  {v['promotion'] or v['parity']}" for v in found
    ]
    tell("\n".join(lines), found, as_json)


@models.command(epilog="Example: `saker models show 7`")
def show(
    version: Annotated[str, typer.Argument(help="Version number, such as 7.")],
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Show the card, proof and promotion of one version."""
    from saker.export.registry import model_versions

    uri = tracking_uri or config.tracking_uri()
    found = next((v for v in model_versions.versions(uri) if v["version"] == version), None)
    if found is None:
        raise model_versions.RegistryError(f"no {config.MODEL}/{version} in the registry at {uri}; see `saker models list`")
    told = "\n".join(f"{name:11} {value}" for name, value in found.items() if name != "description")
    tell(f"{told}\n\n{found['description']}", found, as_json)


@models.command(epilog="Example: `saker models rollback`, or `saker models rollback --to 6`")
def rollback(
    to: Annotated[str | None, typer.Option("--to", help="Version to make champion (default: the previous champion).")] = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Make an earlier version champion again."""
    from saker.export.registry import model_versions

    old, new = model_versions.roll_back(to, tracking_uri or config.tracking_uri())
    tell(f"{config.MODEL}/{new} is champion again and replaces {config.MODEL}/{old}", {"from": old, "to": new}, as_json)


@models.command(epilog="Example: `saker models sign fraud/7 --key signing.pem`, then `saker serve --public-key signing.pub`")
def sign(
    model: Annotated[str, typer.Argument(help="FILE.onnx, or a registered version such as fraud/7.")],
    key: Annotated[Path, typer.Option("--key", help="Ed25519 private key, from `openssl genpkey -algorithm ed25519`.")],
    tracking_uri: Tracking = None,
) -> None:
    """Sign a model for pools with --public-key: writes FILE.onnx.sig, or a tag of the registered version."""
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
    new: Annotated[Path, typer.Argument(help="ONNX file to serve from now on.")],
    over: Annotated[Path, typer.Option("--over", help="File that pools serve: `saker serve --model FILE.onnx`.")],
) -> None:
    """Verify a model file, then atomically replace the file that pools serve.

    For pools that serve a registered model, use `saker promote` and `saker models rollback`.
    """
    import os
    import shutil
    import tempfile

    from saker.engine.contract import read_contract
    from saker.engine.errors import ModelRefused
    from saker.engine.model.active_model import ActiveModel

    wanted = ActiveModel.load(new, new.stem)
    if over.exists() and (now := read_contract(over).id_field) != (then := wanted.session.contract.id_field):
        raise ModelRefused(
            f"{new} identifies a transaction by {then}, {over} by {now}: consumers of the scores could not match them"
        )
    with tempfile.TemporaryDirectory(dir=over.parent) as scratch:
        for ending in (".sig", ""):  # the model last: pools react to it
            if (source := Path(f"{new}{ending}")).exists():
                copy = Path(shutil.copyfile(source, Path(scratch) / over.name))
                with copy.open("rb") as written:
                    os.fsync(written.fileno())
                copy.replace(f"{over}{ending}")
    typer.echo(f"{over} is now {new} (SHA-256 {wanted.sha256[:8]}); pools load it at their next check")


@models.command(epilog="Example: `saker models describe net.onnx > features.toml`, then with `--features features.toml`")
def describe(
    file: Annotated[Path | None, typer.Argument(help="ONNX file, or LightGBM model file.")] = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="Features file to write into the ONNX file (default: print a template).")
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            help="Schema of the records: a file, or with --registry a subject such as payments-value.",
            rich_help_panel=ON_RECORDS,
        ),
    ] = None,
    registry_url: Annotated[
        str | None, typer.Option("--registry", help="Schema registry that has the subject.", rich_help_panel=ON_RECORDS)
    ] = None,
    message: MessageName = "",
    envelope: EnvelopeName = "",
) -> None:
    """Print a features file for a model or a schema, or write one into an ONNX file of other origin so that it can be served.

    With --schema, features get the paths of the fields that have their names. Without a model, every field becomes a feature.
    """
    from saker.export import describe as description
    from saker.export import features_file

    if file is None and schema is None:
        raise typer.BadParameter("expected a model file, --schema, or both")
    if features is None:
        known = None if file is None else description.template(file)
        if schema is not None:
            known = _by_schema(known, schema, registry_url, message, envelope)
        if known is not None:
            typer.echo(features_file.write_features(*known), nl=False)
        return
    if file is None or schema is not None:
        raise typer.BadParameter("--features: expected with an ONNX file and without --schema")
    session = description.describe(file, features_file.read_features(features))
    width = len(session.contract.features)
    typer.echo(f"{file}: contract with {width} features written; it is {UNPROVEN}")
    reason = f", since {session.backend_reason}" if session.backend_reason else ""
    typer.echo(f"  scored by {session.backend}{reason}")
    typer.echo(f"next: saker score FILE --model {file} -o scores.jsonl")


def _by_schema(
    known: tuple[Contract, list[str]] | None, schema: str, registry_url: str | None, message: str, envelope: str
) -> tuple[Contract, list[str]]:
    """known: the contract of a model, and notes on it."""
    from saker.engine.errors import SakerError
    from saker.engine.records.content import SchemaError
    from saker.engine.records.envelope import envelope_of
    from saker.engine.records.schema_fields import schema_fields
    from saker.engine.schema_registry import Registry, schema_of_file
    from saker.export import schema_features

    of = Registry(registry_url).version(schema, "latest")[2] if registry_url else schema_of_file(Path(schema), message)
    try:
        fields = schema_fields(of)
    except SchemaError as error:
        raise SakerError(f"--schema {schema}: {error}") from error
    if (around := envelope_of(envelope)) is not None:
        fields = around.inside(fields)
    if known is None:
        return schema_features.features_of_schema(fields)
    contract, notes = known
    contract, more = schema_features.with_paths(contract, fields)
    return contract, [*notes, *more]
