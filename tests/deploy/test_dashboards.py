"""What stands in deploy/ agrees with the code: dashboards, metrics, rules, alerts, the runbook, the page of options."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from saker.commands import reference_pages
from saker.deploy import runbook_links
from saker.deploy.grafana import build
from saker.deploy.grafana.panels import DASHBOARDS
from saker.deploy.local.debian import program
from saker.engine.metrics.declared import METRICS

DEPLOY = Path(build.__file__).parents[1]
RULES, ALERTS = (
    yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"][0]["rules"] for name in ("rules.yml", "alerts.yml")
)
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPOSED = {name + ending: name for name, declared in METRICS.items() for ending in ENDINGS[declared.kind]}
RECORDED = {rule["record"] for rule in RULES}
RUNBOOK = (DEPLOY.parent / runbook_links.RUNBOOK).read_text()
SECTIONS = {section.partition("\n")[0]: section for section in RUNBOOK.split("\n## ")[1:]}


def asked_for(expr: str) -> set[str]:
    """Names of metrics in a query: what stands before a selector, a range or nothing, and is no function or word."""
    bare = re.sub(r"\{[^}]*\}|\b(by|without|on|ignoring)\s*\([^)]*\)|\[[^\]]*\]|\boffset\s+\w+", " ", expr)
    names = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w|\s*\()", bare))
    return {name for name in names if not re.fullmatch(r"and|or|unless|bool|up|inf", name)}


QUERIES = {
    **{f"{shown.title}: {panel.title}": q.expr for shown in DASHBOARDS for panel in shown.panels for q in panel.queries},
    **{rule["record"]: rule["expr"] for rule in RULES},
    **{alert["alert"]: alert["expr"] for alert in ALERTS},
    **{f"{name}: verify": re.findall(r"\*\*Verify\.\*\* `(.*?)`", text)[0] for name, text in SECTIONS.items()},
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_for_what_is_declared(name: str) -> None:
    asked = asked_for(QUERIES[name])
    assert asked or "up" in QUERIES[name]
    assert asked <= set(EXPOSED) | RECORDED


def test_every_metric_is_looked_at() -> None:
    looked_at = {EXPOSED[name] for expr in QUERIES.values() for name in asked_for(expr) if name in EXPOSED}
    assert looked_at == set(METRICS)


@pytest.mark.parametrize("shown", DASHBOARDS, ids=lambda shown: shown.uid)
def test_a_dashboard_is_what_the_code_makes(shown: Any) -> None:
    text = (build.FOLDER / f"{shown.uid}.json").read_text()
    assert text == build.write(shown), "run `make generated`"
    panels = json.loads(text)["panels"]
    assert len(panels) == len(shown.panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel.get("fieldConfig", {}).get("defaults", {}).get("unit") or panel["options"]["yAxis"]["unit"]
        assert all(target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"{runbook_links.RUNBOOK}#{alert['alert'].lower()}"
    section = SECTIONS[alert["alert"]]
    assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Meaning", "Act", "Verify", "Escalate"]


def test_alerts_link_to_a_page_that_a_team_hosts() -> None:
    base = "https://docs.example.com/operate/runbook/"
    for alert in yaml.safe_load(runbook_links.linked(runbook_links.ALERTS.read_text(), base))["groups"][0]["rules"]:
        assert alert["annotations"]["runbook_url"] == f"{base}#{alert['alert'].lower()}"


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (reference_pages.FOLDER / name).read_text() == reference_pages.PAGES[name](), "run `make generated`"


def test_prometheus_and_alertmanager_take_their_configuration() -> None:
    promtool, amtool = program("prometheus", "promtool"), program("prometheus-alertmanager", "amtool")
    commands: list[list[str | Path]] = [
        [promtool, "check", "config", "prometheus.yml"],
        [promtool, "check", "rules", "rules.yml", "alerts.yml"],
        [promtool, "test", "rules", str(Path(__file__).parent / "rules_test.yml")],
        [amtool, "check-config", "../alertmanager/alertmanager.yml"],
    ]
    for command in commands:
        done = subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
