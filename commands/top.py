"""The view of `saker top`: two readings of /metrics and their difference."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from saker.engine.metrics.counts import STAGES
from saker.engine.metrics.reading import Reading, read


def views(url: str, seconds: float) -> Iterator[Group]:
    """A view every `seconds`, of what happened in that time."""
    before = read(url)
    for _ in itertools.count():
        time.sleep(seconds)
        now = read(url)
        yield view(now, now.since(before))
        before = now


def view(now: Reading, gained: Reading) -> Group:
    """now: current values. gained: increases within `gained.at` seconds."""
    models = [dict(labels) for labels in now.of("model_info")]
    model = ", ".join(f"{found['name']}/{found['version']}" for found in models) or "no model"
    rate = gained.sum("scored_transactions_total") / gained.at
    figures = Table.grid(padding=(0, 3))
    figures.add_row("scored", f"{rate:,.0f}/s", "in all", f"{now.sum('scored_transactions_total'):,.0f}")
    figures.add_row(
        "rejected",
        f"{gained.sum('failed_transactions_total') / gained.at:,.1f}/s",
        "flagged",
        _share(gained.sum("flagged_transactions_total"), gained.sum("scored_transactions_total")),
    )
    figures.add_row(
        "lag", f"{now.sum('consumer_lag_records'):,.0f} records", "in flight", f"{now.sum('in_flight_records'):,.0f} records"
    )
    latency = [_time(gained.quantile(share, "scoring_latency_seconds")) for share in (0.5, 0.99, 0.999)]
    figures.add_row("latency", f"p50 {latency[0]}", f"p99 {latency[1]}", f"p99.9 {latency[2]}")

    stages = Table("stage", "p50 of a batch", "p99", box=None, header_style="dim")
    for stage in STAGES:
        quantiles = (gained.quantile(share, "stage_latency_seconds", stage=stage) for share in (0.5, 0.99))
        stages.add_row(stage, *map(_time, quantiles))
    batch = gained.quantile(0.5, "batch_records")
    stages.add_row("records in it", "-" if batch is None else f"{batch:,.0f}", "")

    processes = Table("process", "CPU", "memory", "restarts", box=None, header_style="dim")
    restarts = {dict(labels)["worker"]: count for labels, count in now.of("worker_restarts_total").items()}
    cpu = gained.of("worker_cpu_seconds_total")
    for labels, size in sorted(now.of("worker_resident_memory_bytes").items()):
        name = dict(labels)["worker"]
        shown = name if name == "parent" else f"worker {name}"
        processes.add_row(
            shown, f"{cpu.get(labels, 0) / gained.at:.0%}", f"{size / 1e6:,.0f} MB", f"{restarts.get(name, 0):,.0f}"
        )
    runs_on = [
        f"{count:.0f} on " + ", ".join(f"{key} {value}" for key, value in labels)
        for labels, count in now.of("workers_ready").items()
    ]
    return Group(
        Panel(figures, title=f"saker, {model}", title_align="left"),
        Panel(stages, title="stages", title_align="left"),
        Panel(
            Group(processes, Text("ready: " + ("; ".join(runs_on) or "none"), style="dim")), title="workers", title_align="left"
        ),
    )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.0f} µs"  # noqa: PLR2004 - a millisecond
