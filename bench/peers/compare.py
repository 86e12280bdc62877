"""saker and its alternatives: the highest rate of each, its latency at a common rate and at half of its highest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from saker.bench.harness.contenders import BenchFailed, Contender
from saker.bench.harness.e2e import Run
from saker.bench.harness.rate_search import RunAt, Say, at_rate, highest_rate, kept, median_run
from saker.deploy.local.environment import EnvironmentFailed

#: Where the search for the highest rate starts, records/s.
_FIRST = 10_000.0


@dataclass(slots=True)
class Compared:
    """`rows`: of each contender its name, tuning and the chosen runs as places in `runs`. `missing`: name to reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def table(self) -> Iterator[str]:
        yield "| contender | highest rate, records/s | at the common rate: p50 / p99 / p99.9 ms | CPU us | MB | at half of its highest: p50 / p99 / p99.9 ms | CPU us | lost, repeated, wrong |"  # noqa: E501
        yield "|---|---|---|---|---|---|---|---|"
        for row in self.rows:
            highest, common, half = (None if row[k] is None else self.runs[row[k]] for k in ("highest", "common", "half"))
            cells = [f"{highest.rate:,.0f}" if highest else "none", _latency(common), *_costs(common), _latency(half)]
            cells.append(f"{half.cpu_us:.1f}" if half else "-")
            told = [run for run in (common, half) if run]
            lost, repeated, wrong = (sum(getattr(run, name) for run in told) for name in ("lost", "duplicates", "wrong"))
            yield f"| {row['name']} | {' | '.join(cells)} | {lost}, {repeated}, {wrong} |"
        for name, reason in self.missing.items():
            yield f"| {name} | {reason} |"


def _latency(run: Run | None) -> str:
    return " / ".join(f"{run.percentiles_ms[p]:.1f}" for p in ("50", "99", "99.9")) if run else "-"


def _costs(run: Run | None) -> tuple[str, str]:
    return (f"{run.cpu_us:.1f}", f"{run.peak_mb:.0f}") if run else ("-", "-")


def compare(run: RunAt, contenders: Sequence[Contender], *, rate: float, limit_ms: float, rounds: int, say: Say) -> Compared:
    """Contenders alternate at the common rate. Then each searches for its highest rate and runs at half of it."""
    compared = Compared()
    present = []
    for contender in contenders:  # each once alone, which also lets a new broker compile
        try:
            say(f"(not counted) {run(contender, rate)}")
        except (BenchFailed, EnvironmentFailed) as error:
            compared.missing[contender.name] = str(error)
            say(f"{contender.name}: {error}")
        else:
            present.append(contender)
    common = at_rate(run, present, rate, rounds, say, dropped=0)
    for contender in present:
        worst = min(told.records_per_s for told in common[contender.name])
        first = _FIRST if all(kept(told, limit_ms) for told in common[contender.name]) else min(worst, rate / 2)
        best, tried = highest_rate(run, contender, first, limit_ms, say)
        half = at_rate(run, [contender], best.rate / 2, rounds, say, dropped=0)[contender.name] if best else []
        chosen = {
            "highest": best,
            "common": median_run(common[contender.name]) if not all(r.void for r in common[contender.name]) else None,
            "half": median_run(half) if not all(r.void for r in half) else None,
        }
        compared.runs += [*common[contender.name], *tried, *half]
        places = {name: compared.runs.index(told) if told else None for name, told in chosen.items()}
        compared.rows.append({"name": contender.name, "about": contender.about, **places})
    return compared
