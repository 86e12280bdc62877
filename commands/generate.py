"""`saker generate`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from saker.commands.options import MODELS, app


@app.command(rich_help_panel=MODELS, epilog="Example: `saker generate payments.csv --velocity velocity.toml`")
def generate(
    file: Annotated[Path, typer.Argument(help="File to write: .csv, .parquet or .jsonl.")],
    rows: Annotated[int, typer.Option("--rows", min=1000, help="Number of payments.")] = 60_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the generator.")] = 0,
    velocity: Annotated[
        Path | None, typer.Option("--velocity", help="File to write velocity features for these payments to.")
    ] = None,
) -> None:
    """Generate card payments whose fraud shows over time: bursts, tests of stolen cards, a device with many cards.

    The same number and seed give the same payments.
    """
    from saker.training import behaviour

    table = behaviour.payments(rows, seed)
    match file.suffix:
        case ".csv":
            table.to_csv(file, index=False)
        case ".parquet":
            table.to_parquet(file, index=False)
        case ".jsonl":
            table.to_json(file, orient="records", lines=True)
        case _:
            raise typer.BadParameter(f"{file}: expected a name that ends with .csv, .parquet or .jsonl")
    typer.echo(f"{file}: {rows:,} payments of {table['card'].nunique():,} cards, {table['is_fraud'].mean():.1%} fraud")
    if velocity is not None:
        shutil.copyfile(behaviour.FEATURES, velocity)
        typer.echo(f"{velocity}: velocity features for them")
