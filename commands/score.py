"""`saker score`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saker.commands.options import (
    ON_OUTPUT,
    SERVING,
    Deletes,
    EnvelopeName,
    Kernels,
    Label,
    Missing,
    Model,
    Tracking,
    app,
    printable,
)
from saker.commands.records import file_records, is_table
from saker.engine import config
from saker.engine.errors import SakerError
from saker.engine.onnx_metadata import UNPROVEN

if TYPE_CHECKING:
    from saker.engine.contract import Contract


@app.command(rich_help_panel=SERVING, epilog="Example: `saker score transactions.csv --model fraud.onnx -o scores.jsonl`")
def score(
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Avro file, or JSON lines.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File for the scores, as JSON lines.", rich_help_panel=ON_OUTPUT)
    ],
    model: Model = "fraud@champion",
    rejected: Annotated[
        Path | None,
        typer.Option(
            "--rejected", help="File for the rejected records and their reasons, as JSON lines.", rich_help_panel=ON_OUTPUT
        ),
    ] = None,
    label: Label = "isFraud",
    missing: Missing = None,
    envelope: EnvelopeName = "",
    deletes: Deletes = None,
    kernels: Kernels = None,
    tracking_uri: Tracking = None,
) -> None:
    """Score a file with the serving pipeline, without Kafka."""
    import orjson

    from saker.engine.contract import read_contract
    from saker.engine.history.table_history import history_of
    from saker.engine.model import registry
    from saker.engine.model.active_model import ActiveModel
    from saker.engine.pipeline import score_batch
    from saker.engine.schema_registry import open_format

    around = open_format(config.RecordSettings(envelope=envelope, skip_deletes=None if deletes is None else deletes == "skip"))
    located = registry.locate(model, tracking_uri or config.tracking_uri())
    contract = read_contract(located.path)
    read = file_records(file, contract.id_path or contract.id_field, label, missing or ())
    of = replace(read.of, envelope=around.envelope, skip_deletes=around.skip_deletes)
    active = ActiveModel.load(located.path, located.name, kernels, of, history=lambda contract: history_of(contract, kernels))
    scores = blank = skipped = 0
    refused = []
    lines = read.values
    with output.open("wb") as out:
        for start in range(0, len(lines), 500):
            batch = score_batch(active, lines[start : start + 500])
            blank += active.decoder.drain_blank()
            if start == 0 and blank and blank == len(batch.results):
                raise SakerError(_none_of(file, active.decoder.contract, read.as_json(lines[0])))
            scores += len(batch.results)
            skipped += sum(batch.skipped.values())
            out.writelines(result + b"\n" for result in batch.results)
            refused += [
                {"line": start + r.index + 1, "code": r.reason, "field": r.field, "message": r.message}
                for r in batch.rejections
            ]
    if rejected is not None:
        rejected.write_bytes(b"".join(orjson.dumps(reason) + b"\n" for reason in refused))
    if is_table(file) and lines and (absent := _absent(active.decoder.contract, lines[0])):
        named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")  # noqa: PLR2004 - a few
        typer.echo(f"  {file} has no column for {len(absent)} fields of the model: {named}", err=True)
    if blank:
        typer.echo(f"  {blank} of {scores} records have none of the model's fields", err=True)
    more = f", skipped {skipped}" if skipped else ""
    typer.echo(f"scored {scores}, rejected {len(refused)}{more} with {active.name}; written to {output}")
    if not active.session.proven:
        typer.echo(f"  {active.name} is {UNPROVEN}")
    for reason in refused[:3]:
        typer.echo(printable(f"  record {reason['line']}: {reason['message']}"), err=True)


def _absent(contract: Contract, record: bytes) -> list[str]:
    """The fields of the contract that are absent from a record, sorted."""
    import orjson

    from saker.engine.paths import is_there

    try:
        parsed = orjson.loads(record)
    except ValueError:
        return []
    return sorted({feature.field for feature in contract.plain_features if not is_there(parsed, feature.steps)})


def _none_of(file: Path, contract: Contract, record: bytes) -> str:
    absent = set(_absent(contract, record))
    expected = ", ".join(feature.field for feature in contract.plain_features[:5])
    return (
        f"{file}: its records have none of the model's {len(contract.features)} fields ({expected}, ...), so a score would say "
        f"nothing; the first begins with {printable(record[:80].decode(errors='replace'))}"
    ) + ("" if absent else ": all of them are empty there")
