"""Re-score published results and report differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saker.commands.options import Label, Missing, Tracking, app
from saker.commands.records import file_records, is_table, lines
from saker.engine import config
from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.export.proof.produced_scores import Model as VerifiedModel


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
    missing: Missing = None,
    tracking_uri: Tracking = None,
) -> None:
    """Make scores that were produced again, by the model that each names and by its Booster; exit code 1 if any differs."""
    from saker.export.proof import produced_scores as verification

    find = _finder(model, booster, tracking_uri or config.tracking_uri())
    if bootstrap_servers is not None and records is None and scores is None:
        from saker.engine.kafka.reader import read_newest

        records_read, results = read_newest(bootstrap_servers, source, output, last)
        positions = [(record.partition, record.offset) for record in records_read]
        found = verification.verify([r.value for r in records_read], [r.value for r in results], find, positions)
    elif bootstrap_servers is None and records is not None and scores is not None:
        from saker.export.proof.table_records import table_records

        of_table = is_table(records)
        sent = table_records(records, id_field, label, missing or ()) if of_table else file_records(records, id_field, label)
        found = verification.verify(sent, lines(scores), find)
    else:
        raise typer.BadParameter("give either --bootstrap-servers, or --records and --scores")
    if report is not None:
        report.write_text(found.to_json())
    typer.echo(found.table())
    if not found.passed:
        raise SakerError("what was produced is not what the models say")


def _finder(model: Path | None, booster: Path | None, tracking_uri: str) -> Callable[[str], VerifiedModel]:
    """What finds the model that a result names: the registry, or this one file."""
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
