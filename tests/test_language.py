"""Help texts, messages, metrics, panels and alerts avoid a few constructions that readers stumble over.

The list is short and exact on purpose: CONTRIBUTING.md says how we write, this catches what slips in most often.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from saker import cli  # noqa: F401 - adds all commands
from saker.commands.options import app
from saker.deploy.grafana.panels import DASHBOARDS
from saker.engine.metrics.declared import METRICS

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "commands", "dags", "deploy", "engine", "export", "saker", "training")
BANNED = {
    r"\banew\b": "again, or recreated",
    r"\bgo(es)? on\b": "continue",
    r"\b(tells|told)\b": "reports, logs",
    r"\bbeside\b": "next to, compared with",
    r"\bso many\b": "a number",
    r"\bagain and again\b": "every N seconds, continuously",
    r"\bwho (reads?|writes?|replays?)\b": "the noun: consumers, producers",
    r"\b(nobody|is none|are none)\b": "no reader, does not exist",
    r"\bby itself\b": "automatically, alone",
    r"\bof its own\b": "separate",
    r"\b(stands?|lies?) in\b": "is in",
    r"\blooks? (at|for)\b": "checks, compares, searches",
    r"(\brecords?|,\d+|%) a second\b": "per second, records/s",
    r"\bus of\b": "µs of",
    r"\b(to|must) say\b": "to report",
}
_SAYS = ("debug", "info", "warning", "error", "exception", "echo", "say", "_said", "warn")


def texts() -> Iterator[tuple[str, str]]:
    """Where each text is, and the text."""
    yield from help_of(typer.main.get_command(app), "saker")
    for name, metric in METRICS.items():
        yield name, metric.documentation
    for dashboard in DASHBOARDS:
        yield dashboard.title, dashboard.description
        for panel in dashboard.panels:
            yield panel.title, f"{panel.title}: {panel.description}"
    for rule in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]:
        yield rule["alert"], rule["annotations"]["summary"]
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from messages(path)


def help_of(command: Any, name: str) -> Iterator[tuple[str, str]]:
    yield name, command.help or ""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", "") or ""
    for below, other in getattr(command, "commands", {}).items():
        yield from help_of(other, f"{name} {below}")


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """Texts of exceptions that are raised, of log lines and of what a command prints."""
    for node in ast.walk(ast.parse(path.read_text())):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if isinstance(node, ast.Raise) or name in _SAYS or name.endswith(("Error", "Refused", "Failed", "Finding")):
            for value in ast.walk(call):
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield f"{path.relative_to(ROOT)}:{value.lineno}", value.value


@pytest.fixture(scope="module")
def all_texts() -> list[tuple[str, str]]:
    return list(texts())


@pytest.mark.parametrize("banned", BANNED)
def test_no_text_has_it(banned: str, all_texts: list[tuple[str, str]]) -> None:
    found = {where: text for where, text in all_texts if re.search(banned, text)}
    assert not found, f"write {BANNED[banned]}"
