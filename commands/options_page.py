"""The page docs/configuration.md, made from the commands themselves: `make generated` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from saker import cli  # noqa: F401 - adds all commands
from saker.commands.options import app

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": "Where MLflow is: `http://...` or `sqlite:///FILE`; without it `sqlite:///mlflow.db` here.",
    "SAKER_KERNELS": "`auto` or `off`, for commands without `--kernels`.",
    "XDG_CACHE_HOME": "Where fetched models and the local stack's files are kept, in `saker/`; without it `~/.cache`.",
    "SAKER_KAFKA_CONFIG": "A file with TLS and SASL settings for every Kafka client: see Operations.",
    "SAKER_BIN": "For the DAGs: the `saker` command.",
    "SAKER_BOOTSTRAP_SERVERS": "For the DAG's drift report: the Kafka to read live records from.",
    "SAKER_RETRAIN_SCHEDULE": "For the DAG: a schedule instead of `@daily`.",
    "CC, SAKER_TARGET": "For the build of the kernels: another compiler; another architecture (`aarch64`).",
}


def page() -> str:
    lines = [
        "# Configuration",
        "",
        "Every setting is an option of a command. `make generated` writes this page from the commands. MLflow, Airflow and",
        "boto3 read their own environment variables as well:",
        "",
        "| variable | what it says |",
        "|---|---|",
        *(f"| `{name}` | {told} |" for name, told in _ENVIRONMENT.items()),
    ]
    for name, command in _commands(typer.main.get_command(app), "saker"):
        lines += ["", f"## {name}", "", _first(command.help or ""), ""]
        lines += ["| option | default | what it says |", "|---|---|---|"]
        for parameter in command.params:
            if parameter.name != "help":
                lines.append(f"| {_name(parameter)} | {_default(parameter)} | {_cell(getattr(parameter, 'help', '') or '')} |")
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        elif command.params:
            yield f"{name} {word}", command


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    return "" if default is None or default is False or callable(default) else f"`{default}`"


def _first(text: str) -> str:
    return text.partition("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
