"""Progress of a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer


class Say(Protocol):
    """Takes what a command is doing and, where it is known, which part of it is done."""

    def __call__(self, text: str, part: float | None = None) -> None: ...


@contextmanager
def steps(name: str) -> Iterator[Say]:
    """Report progress: a bar on a terminal, plain lines otherwise."""
    if not sys.stderr.isatty():
        yield lambda text, part=None: typer.echo(f"{name}: {text}", err=True)  # noqa: ARG005 - a bar needs it
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(name), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def say(text: str, part: float | None = None) -> None:
            progress.update(task, description=text, total=None if part is None else 1.0, completed=part)

        yield say
