"""What `saker top` shows: two readings of /metrics and what happened between them."""

from __future__ import annotations

import itertools
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from saker.engine.errors import SakerError
from saker.engine.metrics.counts import STAGES

Labels = tuple[tuple[str, str], ...]


class Unreachable(SakerError):
    """Nobody answers at the address of the metrics."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Values by name and labels, at a time (monotonic seconds)."""

    at: float
    values: Mapping[tuple[str, Labels], float] = field(default_factory=dict)

    def of(self, name: str) -> dict[Labels, float]:
        return {labels: value for (found, labels), value in self.values.items() if found == name}

    def sum(self, name: str) -> float:
        return sum(self.of(name).values())

    def since(self, before: Reading) -> Reading:
        """What each value gained. A counter that fell was started again: it gained all that it has."""
        gained = {
            key: value - (old if (old := before.values.get(key, 0)) <= value else 0) for key, value in self.values.items()
        }
        return Reading(self.at - before.at, gained)

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Of a histogram, as Prometheus computes it: linear within a bucket; None where nothing was counted."""
        wanted = set(labels.items())
        buckets = sorted(
            (float(dict(found)["le"]), count) for found, count in self.of(f"{name}_bucket").items() if wanted <= set(found)
        )
        if not buckets or not buckets[-1][1]:
            return None
        rank = share * buckets[-1][1]
        low, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= rank:
                inside = count - below
                return low if bound == float("inf") else low + (bound - low) * ((rank - below) / inside if inside else 1)
            low, below = bound, count
        return low


def read(url: str) -> Reading:
    """What /metrics at `url` says now; raises `Unreachable`."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - where the user says
            text = answer.read().decode()
    except (OSError, ValueError) as error:
        raise Unreachable(f"no metrics at {url} ({error}): is `saker serve` running, and on this --metrics-port?") from error
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return Reading(time.monotonic(), {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples})


def views(url: str, seconds: float) -> Iterator[Group]:
    """A view of the last `seconds`, again and again; waits in between."""
    before = read(url)
    for _ in itertools.count():
        time.sleep(seconds)
        now = read(url)
        yield view(now, now.since(before))
        before = now


def view(now: Reading, gained: Reading) -> Group:
    """now: what is. gained: what came in `gained.at` seconds."""
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
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.0f} us"  # noqa: PLR2004 - a millisecond
