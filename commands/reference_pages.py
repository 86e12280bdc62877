"""The reference pages of commands and metrics, from the code itself: `make generated` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from saker import cli  # noqa: F401 - adds all commands
from saker.commands.options import app
from saker.engine.metrics.declared import METRICS

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
_ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": "MLflow server or database of every command without `--tracking-uri`; default `sqlite:///mlflow.db`.",
    "SAKER_KAFKA_CONFIG": "File with TLS and SASL settings, see [TLS and SASL](../how-to/tls-and-sasl.md).",
    "SAKER_KERNELS": "`auto` or `off`, for commands without `--kernels`.",
    "XDG_CACHE_HOME": "Folder whose `saker/` caches models and the local Kafka; default `~/.cache`.",
    "SAKER_BIN": "The `saker` command that the Airflow DAGs call.",
    "SAKER_BOOTSTRAP_SERVERS": "Kafka brokers for the drift report of the Airflow DAG.",
    "SAKER_RETRAIN_SCHEDULE": "Schedule of the Airflow DAG; default `@daily`.",
    "CC, SAKER_TARGET": "Compiler and architecture for building the kernels.",
}
#: In the order in which people need them.
_GROUPS = {
    "Serving": ("serve", "score", "replay", "stack", "demo"),
    "Models": ("train", "export", "promote", "models"),
    "Operating": ("top", "monitor", "drift", "verify", "rejected", "doctor"),
    "Measuring": ("bench",),
}
_ENDINGS = {"counter": "_total"}


def commands_page() -> str:
    """Each command with its options, defaults, choices and ranges, and an example."""
    lines = [
        "# Commands",
        "",
        "Exit codes: 0 on success, 1 on failure (one line on stderr gives the reason), 2 on wrong usage, 130 after Ctrl-C.",
        "Results go to stdout, progress and logs to stderr.",
        "",
        "## Environment variables",
        "",
        "MLflow, Airflow and boto3 read their own variables as well.",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in _ENVIRONMENT.items()),
    ]
    root = typer.main.get_command(app)
    for group, names in _GROUPS.items():
        lines += ["", f"## {group}"]
        for name in names:
            for path, command in _commands(root.commands[name], f"saker {name}"):  # type: ignore[attr-defined]
                lines += _section(path, command)
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Each metric with its kind, labels and meaning."""
    lines = [
        "# Metrics",
        "",
        "`saker serve` exports these at `/metrics`, `saker monitor` those that begin with `drift_`, `live_` or `monitor_`.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for name, declared in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in declared.labels)
        lines.append(f"| `{name}{_ENDINGS.get(declared.kind, '')}` | {declared.kind} | {labels} | {declared.documentation} |")
    return "\n".join(lines) + "\n"


#: The generated pages by name.
PAGES = {"commands.md": commands_page, "metrics.md": metrics_page}


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The commands below a group, or the command itself."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, f"{path} {name}")
    else:
        yield path, command


def _section(path: str, command: Any) -> list[str]:
    summary, _, details = (command.help or "").strip().partition("\n\n")
    lines = ["", f"### {path}", "", _line(summary)]
    if details:
        lines += ["", _line(details)]
    lines += ["", f"{(command.epilog or '').strip()}."]
    parameters = [parameter for parameter in command.params if parameter.name != "help"]
    if parameters:
        lines += ["", "| option | default | meaning |", "|---|---|---|"]
        lines += [f"| {_name(one)} | {_default(one)} | {_meaning(one)} |" for one in parameters]
    return lines


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    return "" if default is None or default is False or callable(default) else f"`{default}`"


def _meaning(parameter: Any) -> str:
    text = _line(getattr(parameter, "help", "") or "")
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        text += f" One of {', '.join(f'`{choice}`' for choice in get_args(annotation))}."
    if parameter.min is not None:
        text += f" From {parameter.min:g}{'' if parameter.max is None else f' to {parameter.max:g}'}."
    return text.replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
