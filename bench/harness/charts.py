"""Charts of results, as SVG text. Colours are those of Okabe and Ito, which colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from hdrh.histogram import HdrHistogram
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from saker.bench.harness.e2e import Run
from saker.bench.harness.rate_search import median_run

SAKER, BASELINE = "#0072b2", "#777777"
_OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPXd"
_TAILS = np.array([0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99])


def svg(draw: Callable[[Axes], None], height: float = 3.4, width: float = 7.2) -> str:
    """What `draw` puts on the axes. The text of the chart stays text, and equal charts are equal files."""
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "saker"}):
        figure = Figure(figsize=(width, max(height, 1.4)), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    found = text.getvalue()
    return found[found.index("<svg") :]


def colours(names: Sequence[str]) -> dict[str, str]:
    """saker is blue and the baseline grey in every chart."""
    others = [name for name in dict.fromkeys(names) if name not in ("saker", "baseline")]
    return {"saker": SAKER, "baseline": BASELINE} | {name: _OTHERS[n % len(_OTHERS)] for n, name in enumerate(others)}


def percentiles(axes: Axes, runs: Sequence[Run]) -> None:
    """Latency by percentile, on the axis of HdrHistogram: the logarithm of the share above."""
    chosen = colours([run.contender for run in runs])
    for run in runs:
        histogram = HdrHistogram.decode(run.histogram)
        ms = [histogram.get_value_at_percentile(float(p)) / 1000 for p in _TAILS]
        axes.plot(1 / (1 - _TAILS / 100), ms, color=chosen[run.contender], label=run.contender, linewidth=2)
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="latency, ms")
    axes.set_xticks([1, 2, 10, 100, 1000, 10000], ["0", "50", "90", "99", "99.9", "99.99"])
    _finish(axes)


def rates(axes: Axes, runs: Sequence[Run]) -> None:
    """p99 by rate; of repeated runs at a rate the one with the median p99."""
    names = list(dict.fromkeys(run.contender for run in runs))
    chosen = colours(names)
    for name, marker in zip(names, _MARKERS * 2, strict=False):
        of = [run for run in runs if run.contender == name and run.whole and not run.void]
        medians = [median_run(run for run in of if run.rate == rate) for rate in sorted({run.rate for run in of})]
        load, p99 = [run.rate for run in medians], [run.percentiles_ms["99"] for run in medians]
        axes.plot(load, p99, marker=marker, color=chosen[name], label=name, markersize=5, linewidth=1.2)
    axes.set(xscale="log", yscale="log", xlabel="load, records/s", ylabel="p99 latency, ms")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
    _finish(axes)


def stages(axes: Axes, runs: Sequence[Run]) -> None:
    """Where a mean batch spends its time, one bar per run."""
    left = np.zeros(len(runs))
    names = [f"{run.contender}, {run.rate:,.0f}/s" for run in runs]
    for stage, colour in zip(runs[0].stages_ms, (BASELINE, SAKER, *_OTHERS), strict=False):
        widths = np.array([max(run.stages_ms[stage], 0) for run in runs])
        axes.barh(names, widths, left=left, color=colour, label=stage)
        left += widths
    axes.set(xlabel="time of a mean batch, ms")
    axes.set_xlim(left=0)
    _legend(axes)


def dots(axes: Axes, values: Sequence[tuple[str, float]], label: str) -> None:
    """One dot per name on a logarithmic axis, the largest on top. A bar would need an axis that starts at zero."""
    ordered = sorted(values, key=lambda pair: pair[1])
    chosen = colours([name for name, _ in ordered])
    for place, (name, value) in enumerate(ordered):
        axes.plot(value, place, "o", color=SAKER if name.startswith("saker") else chosen[name], markersize=9)
        axes.annotate(f"{value:,.0f}", (value, place), (10, -3), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", xlabel=label)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_xlim(right=2.5 * ordered[-1][1])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", alpha=0.3)


def bars(axes: Axes, groups: Sequence[str], series: Sequence[tuple[str, str, Sequence[float]]], label: str) -> None:
    """Horizontal bars from zero, several per group. series: name, colour and one value per group; the first group on top."""
    size = 0.8 / len(series)
    for number, (name, colour, values) in enumerate(series):
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * size
        drawn = axes.barh(places, values, size, color=colour, label=name)
        axes.bar_label(drawn, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if len(series) > 1:
        _legend(axes)


def _finish(axes: Axes) -> None:
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Beside the plot, where it hides nothing."""
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
