"""Results of `saker bench e2e` and `peers` as one HTML page with tables and charts. It needs no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from saker.bench.harness import charts, results
from saker.bench.harness.contenders import BenchFailed
from saker.bench.harness.e2e import Run
from saker.bench.harness.rate_search import median_run

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 60rem; color: #1c2430; background: #fff }
h1 { font-size: 1.5rem } h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #d5dbe3 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .875rem; white-space: nowrap }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e6eaef }
th:first-child, td:first-child { text-align: left }
svg { width: 100%; height: auto } code { font-size: .85rem; overflow-wrap: anywhere }
.note { color: #566273; font-size: .875rem }
"""
_ABOUT = (
    "Latency is the time from the moment a record was due to be sent until its result was read back. The baseline consumes and "
    "produces and does no other work: the cost of Kafka and its client. Of repeated runs, the one with the median p99 is shown."
)
_KINDS = {"e2e": "End-to-end latency", "peers": "Comparison with alternatives"}


def page(paths: Sequence[Path]) -> str:
    """HTML of one or several result files; raises `BenchFailed` for any other file."""
    sections = []
    for path in paths:
        try:
            told, runs = results.read(path)
        except (KeyError, TypeError, ValueError) as error:
            raise BenchFailed(
                f"{path}: expected a result of `saker bench e2e` or `saker bench peers`, got {error!r}"
            ) from error
        sections.append("".join(_section(path.name, told, runs)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>saker bench</title>'
        f"<style>{_STYLE}</style></head><body><h1>saker bench</h1>"
        f'<p class="note">{_ABOUT}</p>{"".join(sections)}</body></html>\n'
    )


def _section(name: str, told: dict[str, Any], runs: list[Run]) -> Iterator[str]:
    machine, versions = told["machine"], ", ".join(f"{package} {number}" for package, number in told["versions"].items())
    yield f"<h2>{_KINDS[told['kind']]} ({html.escape(name)})</h2>"
    yield f'<p class="note">{html.escape(told["date"])}, commit {html.escape(told["commit"])}, {machine["cores"]} cores of '
    yield f"{html.escape(machine['processor'])}, kernel {html.escape(machine['kernel'])}; {html.escape(versions)}<br>"
    yield f"<code>{html.escape(told['command'])}</code></p>"
    if told["kind"] == "peers":
        kept = [(row["name"], runs[row["highest"]].rate) for row in told["peers"] if row["highest"] is not None]
        common = [runs[row["common"]] for row in told["peers"] if row["common"] is not None]
        yield f"<p>{html.escape(_summary(common))}</p>"
        yield _peer_table(told, runs)
        title = "Highest rate without loss"
        yield _chart(lambda axes: charts.dots(axes, kept, "records/s (logarithmic)"), title, 0.8 + 0.35 * len(kept))
        yield _chart(lambda axes: charts.percentiles(axes, common), f"Latency at {common[0].rate:,.0f} records/s")
        yield _chart(lambda axes: charts.rates(axes, runs), "p99 latency by load")
    else:
        shown = list(_medians(runs))
        yield f"<p>{html.escape(_summary(shown))}</p>"
        yield _run_table(shown)
        rates = sorted({run.rate for run in shown})
        for rate in rates if len(rates) <= 3 else (rates[0], rates[-1]):  # noqa: PLR2004 - a page, not an atlas
            of = [run for run in shown if run.rate == rate]
            yield _chart(partial(charts.percentiles, runs=of), f"Latency at {rate:,.0f} records/s")
        if len(rates) > 1:
            yield _chart(lambda axes: charts.rates(axes, runs), "p99 latency by load")
        staged = [run for run in shown if run.stages_ms]
        if staged:
            yield _chart(
                lambda axes: charts.stages(axes, staged), "Where a mean batch spends its time", 0.9 + 0.5 * len(staged)
            )


def _summary(runs: list[Run]) -> str:
    """One sentence per rate: saker next to the baseline."""
    sentences = []
    for rate in sorted({run.rate for run in runs}):
        of = {run.contender: run for run in runs if run.rate == rate}
        if {"saker", "baseline"} <= of.keys():
            (p50, p99), (base50, base99) = (
                [of[name].percentiles_ms[p] for p in ("50", "99")] for name in ("saker", "baseline")
            )
            sentences.append(
                f"At {rate:,.0f} records/s, saker's p50 is {p50:.2f} ms ({p50 / base50:.2f} times the baseline's) and its p99 "
                f"{p99:.1f} ms ({p99 / base99:.2f} times)."
            )
    return " ".join(sentences)


def _medians(runs: list[Run]) -> Iterator[Run]:
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.contender, run.rate), []).append(run)
    for many in groups.values():
        if not all(run.void for run in many):
            yield median_run(many)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _run_table(runs: list[Run]) -> str:
    head = ("", "rate", "p50 ms", "p90", "p99", "p99.9", "max", "records/s", "CPU µs", "MB", "lost", "repeated", "wrong")
    rows = ((run.contender, f"{run.rate:,.0f}", *_latency(run, *run.percentiles_ms), *_rest(run)) for run in runs)
    return _table(head, rows)


def _latency(run: Run | None, *percentiles: str) -> list[str]:
    return [f"{run.percentiles_ms[p]:.2f}" if run else "-" for p in percentiles]


def _rest(run: Run) -> tuple[str, ...]:
    wrong = f"{run.wrong:,}" if run.checked else "-"
    costs = (f"{run.max_ms:.1f}", f"{run.records_per_s:,.0f}", f"{run.cpu_us:.1f}", f"{run.peak_mb:.0f}")
    return (*costs, f"{run.lost:,}", f"{run.duplicates:,}", wrong)


def _peer_table(told: dict[str, Any], runs: list[Run]) -> str:
    head = ("", "highest rate", "p50 ms", "p99", "p99.9", "CPU µs", "MB", "p50 at half", "p99", "p99.9", "lost", "wrong")
    rows = []
    for row in told["peers"]:
        common, half, highest = (None if row[k] is None else runs[row[k]] for k in ("common", "half", "highest"))
        costs = (f"{common.cpu_us:.1f}", f"{common.peak_mb:.0f}") if common else ("-", "-")
        chosen = [run for run in (common, half) if run]
        flaws = (f"{sum(run.lost for run in chosen)}", f"{sum(run.wrong for run in chosen)}")
        first, second = (_latency(run, "50", "99", "99.9") for run in (common, half))
        rows.append((row["name"], f"{highest.rate:,.0f}" if highest else "none", *first, *costs, *second, *flaws))
    about = "".join(f"<li>{html.escape(row['name'])}: {html.escape(row['about'])}</li>" for row in told["peers"])
    missing = "".join(f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in told["missing"].items())
    return _table(head, rows) + f'<ul class="note">{about}{missing}</ul>'


def _chart(draw: Callable[[Axes], None], title: str, height: float = 3.4) -> str:
    return f"<h3>{html.escape(title)}</h3>{charts.svg(draw, height)}"
