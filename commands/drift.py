"""Compare live records with the training data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from saker.commands.options import (
    ON_KAFKA,
    ON_OUTPUT,
    OPERATING,
    Bootstrap,
    EnvelopeName,
    Input,
    Json,
    MessageName,
    Model,
    RecordFormat,
    RegistryUrl,
    SchemaFile,
    Scores,
    Tracking,
    app,
    tell,
)
from saker.engine import config
from saker.engine.errors import SakerError


@app.command(
    rich_help_panel=OPERATING, epilog="Example: `saker drift --bootstrap-servers localhost:9092 --last 10000 --output drift`"
)
def drift(
    bootstrap_servers: Bootstrap,
    model: Model = "fraud@champion",
    source: Input = "raw-transactions",
    output_topic: Scores = "scored-transactions",
    last: Annotated[
        int,
        typer.Option(
            "--last", min=100, help="Number of newest scores to compare, with their records.", rich_help_panel=ON_KAFKA
        ),
    ] = 10_000,
    limit: Annotated[
        float, typer.Option("--limit", min=0, help="PSI above which a feature or the score counts as drifted.")
    ] = 0.25,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for drift.json and drift.png.", rich_help_panel=ON_OUTPUT)
    ] = None,
    evidently: Annotated[
        Path | None,
        typer.Option(
            "--evidently",
            help="File for an HTML report by Evidently, against the newest training rows.",
            rich_help_panel=ON_OUTPUT,
        ),
    ] = None,
    record_format: RecordFormat = "json",
    registry_url: RegistryUrl = None,
    schema: SchemaFile = None,
    message: MessageName = "",
    envelope: EnvelopeName = "",
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Compare live records and scores with the training data. Exit code 1 if any feature or the score has drifted.

    Reports the population stability index (PSI) of each feature and of the score.
    """
    from saker.commands import live_monitor
    from saker.engine.contract import read_contract
    from saker.engine.model import registry
    from saker.engine.schema_registry import open_format
    from saker.training import drift as of_training

    located = registry.locate(model, tracking_uri or config.tracking_uri())
    contract = read_contract(located.path)
    records = open_format(config.RecordSettings(record_format, registry_url, schema, message, envelope))
    newest = live_monitor.read(bootstrap_servers, contract, source, output_topic, last, records)
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
        from saker.commands.evidently import write_report

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
