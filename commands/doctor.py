"""Report what this installation is, and whether its parts agree."""

from __future__ import annotations

from typing import Annotated

import typer

from saker.commands.options import OPERATING, EnvelopeName, Input, RejectedTopic, Scored, Tracking, app
from saker.commands.versions import installed
from saker.engine import config
from saker.engine.errors import SakerError


@app.command(rich_help_panel=OPERATING, epilog="Example: `saker doctor --export --kind binary_sigmoid_2`")
def doctor(
    export_: Annotated[bool, typer.Option("--export", help="Also export and verify one small model of every kind.")] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="With --export: kind to check. Repeatable.")] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option("--bootstrap-servers", help="HOST:PORT of Kafka brokers whose topics to check.")
    ] = None,
    source: Input = "raw-transactions",
    output: Scored = "scored-transactions",
    rejected: RejectedTopic = "rejected-transactions",
    registry_url: Annotated[
        str | None, typer.Option("--registry", help="Schema registry whose schemas of --input to check against --model.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model to check against --input, such as fraud@champion (the default with --registry) or FILE.onnx.",
        ),
    ] = None,
    envelope: EnvelopeName = "",
    tracking_uri: Tracking = None,
) -> None:
    """Check the installation and, if asked, Kafka topics, schemas and the model export. Exit code 1 if a check fails."""
    for line in installed():
        typer.echo(line)
    if bootstrap_servers is not None:
        _check_topics(bootstrap_servers, source, output, rejected)
        if model is not None and registry_url is None:
            _check_velocity(bootstrap_servers, source, model, config.RecordSettings(envelope=envelope), tracking_uri)
    if registry_url is not None:
        from saker.commands.check_schemas import check_schemas

        model = model or "fraud@champion"
        lines, fits = check_schemas(registry_url, f"{source}-value", model, envelope, tracking_uri)
        typer.echo("\n".join(lines))
        if not fits:
            raise SakerError(f"{model} cannot score records of the newest schema; see above")
    if not export_:
        return
    from saker.export.selfcheck.converters import measure
    from saker.export.selfcheck.model_zoo import KINDS

    if unknown := sorted(set(kind or ()) - set(KINDS)):
        raise typer.BadParameter(f"no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    wrong = []
    for name in kind or KINDS:
        row = measure(name)
        typer.echo(str(row))
        wrong += [] if row.passed else [name]
    if wrong:
        raise SakerError(f"the export differs from LightGBM for {', '.join(wrong)}")


def _check_velocity(
    bootstrap_servers: str, source: str, model: str, records: config.RecordSettings, tracking_uri: str | None
) -> None:
    from saker.engine.contract import read_contract
    from saker.engine.model import registry
    from saker.engine.schema_registry import open_format
    from saker.engine.serving.key_check import check_keys

    located = registry.locate(model, tracking_uri or config.tracking_uri())
    contract = read_contract(located.path)
    check_keys(bootstrap_servers, source, contract, open_format(records))
    if contract.velocity:
        typer.echo(f"{located.name}: {len(contract.velocity)} velocity features, each history in one partition of {source}")


def _check_topics(bootstrap_servers: str, *names: str) -> None:
    from saker.engine.kafka import topic_checks

    found, findings = topic_checks.check(bootstrap_servers, *names)
    for topic in found:
        typer.echo(
            f"topic {topic.name}: partitions {topic.partitions}, replicas {topic.replicas}, "
            f"max.message.bytes {topic.max_message_bytes}, min.insync.replicas {topic.min_insync_replicas}, "
            f"retention.ms {topic.retention_ms}, message.timestamp.type {topic.timestamp_type}"
        )
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding.text}")
    if any(finding.severity == "error" for finding in findings):
        raise SakerError("saker cannot serve with these topics; see the errors above")
