"""Results as one self-contained page: tables, and charts as SVG. Readable on a phone, needs no network."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from hdrh.histogram import HdrHistogram
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from saker.bench.harness import results
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
    "Latency counts from the moment a record was due to its result read back. The echo consumes and produces and does no work: "
    "what Kafka and its client cost."
)
_COLOURS = ("#0b6e99", "#8a8f98", "#d97706", "#7c3aed", "#15803d", "#be123c", "#0f766e", "#a16207")
_TAILS = np.array([0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99])


def page(paths: Sequence[Path]) -> str:
    """HTML of one or several result files; raises `BenchFailed` for a file that is none."""
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
    yield f"<h2>{html.escape(told['kind'])}: {html.escape(name)}</h2>"
    yield f'<p class="note">{html.escape(told["date"])}, commit {html.escape(told["commit"])}, {machine["cores"]} cores of '
    yield f"{html.escape(machine['processor'])}, kernel {html.escape(machine['kernel'])}; {html.escape(versions)}<br>"
    yield f"<code>{html.escape(told['command'])}</code></p>"
    if told["kind"] == "peers":
        yield _peer_table(told, runs)
        kept = [(row["name"], runs[row["highest"]].rate) for row in told["peers"] if row["highest"] is not None]
        yield _chart(lambda axes: _bars(axes, kept), "Highest rate with nothing lost, records/s", 0.5 + 0.4 * len(kept))
        common = [runs[row["common"]] for row in told["peers"] if row["common"] is not None]
        yield _chart(lambda axes: _percentiles(axes, common), "Latency at the common rate, ms")
        yield _chart(lambda axes: _rates(axes, runs), "p99 by rate, ms")
    else:
        shown = list(_medians(runs))
        yield _run_table(shown)
        rates = sorted({run.rate for run in shown})
        for rate in rates if len(rates) <= 3 else (rates[0], rates[-1]):  # noqa: PLR2004 - a page, not an atlas
            of = [run for run in shown if run.rate == rate]
            yield _chart(lambda axes, of=of: _percentiles(axes, of), f"Latency at {rate:,.0f} records/s, ms")
        if len(rates) > 1:
            yield _chart(lambda axes: _rates(axes, runs), "p99 by rate, ms")
        staged = [run for run in shown if run.stages_ms]
        if staged:
            yield _chart(lambda axes: _stages(axes, staged), "Where a mean batch spends its time, ms", 0.8 + 0.5 * len(staged))


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
    head = ("", "rate", "p50 ms", "p90", "p99", "p99.9", "max", "records/s", "CPU us", "MB", "lost", "repeated", "wrong")
    rows = ((run.contender, f"{run.rate:,.0f}", *_latency(run, *run.percentiles_ms), *_rest(run)) for run in runs)
    return _table(head, rows)


def _latency(run: Run | None, *percentiles: str) -> list[str]:
    return [f"{run.percentiles_ms[p]:.2f}" if run else "-" for p in percentiles]


def _rest(run: Run) -> tuple[str, ...]:
    wrong = f"{run.wrong:,}" if run.checked else "-"
    costs = (f"{run.max_ms:.1f}", f"{run.records_per_s:,.0f}", f"{run.cpu_us:.1f}", f"{run.peak_mb:.0f}")
    return (*costs, f"{run.lost:,}", f"{run.duplicates:,}", wrong)


def _peer_table(told: dict[str, Any], runs: list[Run]) -> str:
    head = ("", "highest rate", "p50 ms", "p99", "p99.9", "CPU us", "MB", "p50 at half", "p99", "p99.9", "lost", "wrong")
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


def _chart(draw: Any, title: str, height: float = 3.6) -> str:
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "saker"}):
        figure = Figure(figsize=(5.4, max(height, 1.8)), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return f"<h3>{html.escape(title)}</h3>{svg[svg.index('<svg') :]}"


def _percentiles(axes: Axes, runs: list[Run]) -> None:
    """By the logarithm of what is left above a percentile, as HdrHistogram plots it; ms on a logarithmic scale."""
    for run, colour in _coloured(runs, [run.contender for run in runs]):
        histogram = HdrHistogram.decode(run.histogram)
        ms = [histogram.get_value_at_percentile(float(p)) / 1000 for p in _TAILS]
        axes.plot(1 / (1 - _TAILS / 100), ms, color=colour, label=run.contender, linewidth=2)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks([1, 2, 10, 100, 1000, 10000], ["0", "50", "90", "99", "99.9", "99.99 %"])
    _finish(axes)


def _rates(axes: Axes, runs: list[Run]) -> None:
    names = list(dict.fromkeys(run.contender for run in runs))
    for name, colour in _coloured(names, names):
        points = sorted((run.rate, run.percentiles_ms["99"]) for run in runs if run.contender == name and run.whole)
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="records/s")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
    _finish(axes)


def _coloured(items: Sequence[Any], names: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """saker in the first colour, the echo in grey, the others as they come."""
    others = iter(_COLOURS[2:] * 2)
    for item, name in zip(items, names, strict=True):
        yield item, {"saker": _COLOURS[0], "echo": _COLOURS[1]}.get(name) or next(others)


def _finish(axes: Axes) -> None:
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)


def _stages(axes: Axes, runs: list[Run]) -> None:
    left = np.zeros(len(runs))
    names = [f"{run.contender} at {run.rate:,.0f}/s" for run in runs]
    for stage, colour in zip(runs[0].stages_ms, _COLOURS, strict=False):
        widths = np.array([max(run.stages_ms[stage], 0) for run in runs])
        axes.barh(names, widths, left=left, color=colour, label=stage)
        left += widths
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.02))


def _bars(axes: Axes, rates: list[tuple[str, float]]) -> None:
    names, values = zip(*sorted(rates, key=lambda pair: pair[1]), strict=True)
    bars = axes.barh(names, values, color=_COLOURS[0])
    axes.set_xscale("log")
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=9)
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
