"""Re-score published results and report differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saker.commands.options import (
    ON_DATA,
    ON_KAFKA,
    ON_MODEL,
    ON_OUTPUT,
    OPERATING,
    EnvelopeName,
    Input,
    Label,
    MessageName,
    Missing,
    RecordFormat,
    RegistryUrl,
    SchemaFile,
    Scored,
    Tracking,
    app,
)
from saker.commands.records import file_records, is_table, lines
from saker.engine import config
from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.export.proof.produced_scores import Model as VerifiedModel


@app.command(rich_help_panel=OPERATING, epilog="Example: `saker verify --bootstrap-servers localhost:9092 --last 100000`")
def verify(
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            "--bootstrap-servers", help="HOST:PORT of Kafka brokers, to verify published scores.", rich_help_panel=ON_KAFKA
        ),
    ] = None,
    source: Input = "raw-transactions",
    output: Scored = "scored-transactions",
    last: Annotated[
        int, typer.Option("--last", min=1, help="Number of newest scores to verify.", rich_help_panel=ON_KAFKA)
    ] = 100_000,
    records: Annotated[
        Path | None,
        typer.Option("--records", help="File of records, to verify a scores file without Kafka.", rich_help_panel=ON_DATA),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", help="Scores of --records, as JSON lines.", rich_help_panel=ON_DATA)
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="FILE.onnx that gave the scores, if they do not name a registered version.",
            rich_help_panel=ON_MODEL,
        ),
    ] = None,
    booster: Annotated[
        Path | None, typer.Option("--booster", help="LightGBM model file of --model.", rich_help_panel=ON_MODEL)
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="File for the result as JSON.", rich_help_panel=ON_OUTPUT)
    ] = None,
    label: Label = "isFraud",
    id_field: Annotated[
        str, typer.Option("--id", help="Column that identifies a transaction in a CSV file.", rich_help_panel=ON_DATA)
    ] = "TransactionID",
    missing: Missing = None,
    record_format: RecordFormat = "json",
    registry_url: RegistryUrl = None,
    schema: SchemaFile = None,
    message: MessageName = "",
    envelope: EnvelopeName = "",
    tracking_uri: Tracking = None,
) -> None:
    """Re-score published results and report differences.

    Each score is compared with that of the model it names and of the Booster behind it. Exit code 1 if any differs.
    """
    from saker.export.proof import produced_scores as verification

    find = _finder(model, booster, tracking_uri or config.tracking_uri())
    if bootstrap_servers is not None and records is None and scores is None:
        from saker.engine.kafka.reader import RecordsRead, read_newest
        from saker.engine.schema_registry import open_format
        from saker.engine.serving.catch_up import history_before

        records_read, results = read_newest(bootstrap_servers, source, output, last)
        positions = [(record.partition, record.offset) for record in records_read]
        of = open_format(config.RecordSettings(record_format, registry_url, schema, message, envelope))
        given = RecordsRead(records_read)
        found = verification.verify(
            given,
            [result.value for result in results],
            find,
            positions,
            of,
            lambda contract: history_before(bootstrap_servers, source, contract, given.starts, of),
        )
    elif bootstrap_servers is None and records is not None and scores is not None:
        from saker.engine.records.formats import JSON
        from saker.export.proof.table_records import table_records

        of_table = is_table(records)
        sent, of = (
            (table_records(records, id_field, label, missing or ()), JSON)
            if of_table
            else file_records(records, id_field, label)[:2]
        )
        found = verification.verify(sent, lines(scores), find, of=of)
    else:
        raise typer.BadParameter("expected either --bootstrap-servers, or --records and --scores")
    if report is not None:
        report.write_text(found.to_json())
    typer.echo(found.table())
    if not found.passed:
        raise SakerError("the published scores differ from those of the models")


def _finder(model: Path | None, booster: Path | None, tracking_uri: str) -> Callable[[str], VerifiedModel]:
    """A function that finds the model which a result names: in the registry, or this one file."""
    from saker.engine.model import registry
    from saker.engine.model.session import open_session
    from saker.export.proof import produced_scores

    if model is None:
        from saker.export.registry import model_versions, run_artifacts

        def find(name: str) -> VerifiedModel:
            version = registry.find_version(name, tracking_uri)
            session = open_session(registry.fetch(version, tracking_uri).path)
            try:
                return produced_scores.Model(session, run_artifacts.booster_of(version, tracking_uri))
            except model_versions.RegistryError:  # its run was deleted, or another tool registered it
                return produced_scores.Model(session, None)

        return find
    from saker.export.readers.lightgbm_file import open_model_file

    located = registry.locate(str(model), tracking_uri)
    only = produced_scores.Model(open_session(located.path), None if booster is None else open_model_file(booster))

    def this_one(name: str) -> VerifiedModel:
        if name != located.name:
            raise produced_scores.NotVerifiable(f"there are scores of {name}, and --model is {located.name}")
        return only

    return this_one
