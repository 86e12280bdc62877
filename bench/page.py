"""The benchmark page and its charts, from the files in bench/results: `make generated` writes them.

All files must come from one machine and one day. A figure that is not in a file is not on the page.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from saker.bench.harness import charts, results
from saker.bench.harness.e2e import Run
from saker.bench.harness.rate_search import median_run
from saker.bench.scenarios.backlog import Measured, median

ROOT = Path(__file__).parents[1]
PAGE, IMAGES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "images"
_HEAD = """# Benchmarks

Every figure on this page comes from a file in `bench/results`; `make generated` writes the page from these files. Each
section has the command that reproduces it.

{about}

**Rules.** Contenders alternate within one run, so ratios hold on a noisy machine. Of repeated runs, the page shows the run
with the median p99, and for a backlog the one with the median rate. Figures of kernels are medians of CPU time. Compare
figures within a table, not across machines.

**Load.** Latency is the time from the moment a record was due to be sent until its result was read back, so a stall counts
for every record that was due in it (open loop, Poisson arrivals). If the sender was late, the run is void. Every score is
compared with LightGBM's.

**Baseline.** A Python consumer that produces values as long as a result and does no other work: the cost of Kafka and
its client.

**Models.** S: 50 features, 200 trees of 31 leaves. M: 200 features, 500 trees of 63. L: 432 features, 1,000 trees of 255.
"""


def page(folder: Path) -> tuple[str, dict[str, str]]:
    """The page, and its charts as SVG by file name, from the results in `folder`."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    images: dict[str, str] = {}
    parts = [_HEAD.format(about=_about(read.values()))]
    for name, section in _SECTIONS.items():
        parts.append("\n".join(section(read[name], images)))
    return "\n".join(parts) + "\n", images


def _about(files: Iterable[dict[str, Any]]) -> str:
    first, *others = files
    machine = {(one["machine"]["processor"], one["machine"]["cores"]) for one in (first, *others)}
    dates = sorted({one["date"][:10] for one in (first, *others)})
    if len(machine) > 1:
        raise ValueError(f"bench/results: expected one machine, got {machine}; run all commands again")
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    ((processor, cores),) = machine
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"**Machine.** {processor}, {cores} virtual cores on a shared host, {when}. {versions}."


def _command(result: dict[str, Any]) -> list[str]:
    words = [word for word in shlex.split(result["command"]) if not word.endswith(".json") and word != "-o"]
    return ["", f"Reproduce: `{shlex.join(words)}`", ""]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _chart(images: dict[str, str], name: str, alternative: str, draw: Callable[[Axes], None], height: float) -> Iterator[str]:
    images[name] = charts.svg(draw, height)
    yield f"![{alternative}](images/{name})"
    yield ""


def _peers(result: dict[str, Any], images: dict[str, str]) -> Iterator[str]:
    runs = [Run(**run) for run in result["runs"]]
    rate = runs[0].rate  # the common one
    yield "## Compared with alternatives\n"
    yield "The same records of 50 fields, model S, broker and load. Sender, broker, contender and reader share the cores."
    yield "*Highest rate* is the highest load at which p99 stayed below 1 s, nothing was lost and no score was wrong."
    yield from _command(result)

    def latency(run: Run | None) -> str:
        return " / ".join(f"{run.percentiles_ms[p]:.1f}" for p in ("50", "99", "99.9")) if run else "-"

    rows = []
    for row in result["peers"]:
        highest, common, half = (None if row[k] is None else runs[row[k]] for k in ("highest", "common", "half"))
        at_highest = f"{highest.percentiles_ms['50']:.0f} / {highest.percentiles_ms['99']:.0f}" if highest else "-"
        cost = (f"{common.cpu_us:.0f}", f"{common.peak_mb:.0f}") if common else ("-", "-")
        reached = f"{highest.rate:,.0f}" if highest else "none"
        rows.append((row["name"], reached, at_highest, latency(common), *cost, latency(half)))
    head = ("contender", "highest rate, records/s", "p50 / p99 there, ms", f"p50 / p99 / p99.9 at {rate:,.0f}/s, ms")
    yield from _table((*head, "CPU per record, µs", "memory, MB", "p50 / p99 / p99.9 at half of its highest rate, ms"), rows)
    yield "Memory is the sum of the peaks of all processes of a contender; pages that they share count for each."
    yield ""
    flawed = [run for run in runs if run.rate == rate and (run.lost or run.wrong)]
    for name, of in itertools.groupby(flawed, lambda run: run.contender):
        yield f"{name} lost {max(run.lost for run in of):,} records in one of its runs at that rate.\n"
    yield from (f"- *{row['name']}*: {row['about']}" for row in result["peers"])
    yield from (f"- *{name}* is missing: {reason}" for name, reason in result["missing"].items())
    yield ""
    shown = ("saker", "baseline", "python loop", "Quix Streams")
    chosen = [run for run in runs if run.contender in shown]
    alternative = "p99 latency by rate for saker, a no-op baseline, a Python loop and Quix Streams"
    yield from _chart(images, "fast.svg", alternative, lambda axes: charts.rates(axes, chosen), 3.4)


def _e2e(result: dict[str, Any], images: dict[str, str]) -> Iterator[str]:
    runs = [Run(**run) for run in result["runs"]]
    yield "## What saker adds to Kafka\n"
    yield "One worker next to the baseline, at loads from few to many records."
    yield from _command(result)
    rows = []
    for rate in sorted({run.rate for run in runs}):
        medians = {
            name: median_run(run for run in runs if run.rate == rate and run.contender == name)
            for name in ("baseline", "saker")
        }
        cells = [[f"{run.percentiles_ms[p]:.2f}" for p in ("50", "99")] for run in medians.values()]
        times = [medians["saker"].percentiles_ms[p] / medians["baseline"].percentiles_ms[p] for p in ("50", "99")]
        cpu = [f"{run.cpu_us:.0f}" for run in medians.values()]
        pairs = [f"{' / '.join(cell)}" for cell in cells]
        rows.append((f"{rate:,.0f}", *pairs, " / ".join(f"{time:.2f}" for time in times), " / ".join(cpu)))
    head = (
        "records/s",
        "baseline p50 / p99, ms",
        "saker p50 / p99, ms",
        "ratio p50 / p99",
        "CPU per record, baseline / saker, µs",
    )
    yield from _table(head, rows)
    yield "At the rates in between, results wait for the previous acknowledgement: see [Tuning](operate/tuning.md).\n"
    yield from _chart(images, "latency.svg", "p99 latency by load", lambda axes: charts.rates(axes, runs), 3.4)


def _backlog(result: dict[str, Any], images: dict[str, str]) -> Iterator[str]:
    yield "## Draining a backlog\n"
    yield f"{result['records']:,} records of model S wait in the topic; one worker drains it."
    yield from _command(result)
    found: dict[str, list[Measured]] = {}
    for drain in result["drains"]:
        found.setdefault(drain.pop("contender"), []).append(Measured(**drain))
    medians = {name: median(runs) for name, runs in found.items()}
    rows = [
        (
            name,
            f"{run.records_per_s:,.0f}",
            f"{run.records_per_s / medians['python loop'].records_per_s:.1f}",
            f"{run.cpu_us:.1f}",
        )
        for name, run in medians.items()
    ]
    yield from _table(("contender", "records/s", "times the Python loop", "CPU per record, µs"), rows)
    rates = [(name, run.records_per_s) for name, run in medians.items()]
    alternative = "Records per second of one worker from a backlog"
    label = "records/s from a backlog (logarithmic)"
    yield from _chart(images, "backlog.svg", alternative, lambda axes: charts.dots(axes, rates, label), 0.7 + 0.4 * len(rates))


def _timed(title: str, about: str, what: str) -> Callable[[dict[str, Any], dict[str, str]], Iterator[str]]:
    """A table of a stage: µs per record of the first contender of a group, and how many times as long the others take."""

    def section(result: dict[str, Any], images: dict[str, str]) -> Iterator[str]:  # noqa: ARG001
        yield f"## {title}\n"
        yield about
        yield from _command(result)
        groups = [(name, list(of)) for name, of in itertools.groupby(result["benchmarks"], lambda one: one["group"])]
        for contenders, same in itertools.groupby(groups, lambda group: tuple(one["extra_info"]["who"] for one in group[1])):
            first, *others = contenders
            rows = []
            for name, of in same:
                us = [one["stats"]["median"] * 1e6 / one["extra_info"]["records"] for one in of]
                rows.append((name.partition(" ")[2], f"{us[0]:.3g}", *(f"{other / us[0]:.3g} times" for other in us[1:])))
            yield from _table((what, f"{first}, µs per record", *others), rows)

    return section


def _exactness(result: dict[str, Any], images: dict[str, str]) -> Iterator[str]:
    kinds = result["kinds"]
    off = [kind for kind in kinds if not kind["adversarial"]["refused"] and kind["adversarial"]["rows_off"]]
    rejected = sum(bool(kind["adversarial"]["refused"]) for kind in kinds)
    rows = sum(kind["adversarial"]["rows"] for kind in kinds)
    yield "## Exactness\n"
    wrong = sum(kind["rows_off"] for kind in kinds)
    yield f"{len(kinds)} small models, one per kind of LightGBM model, on {rows:,} rows made from their splits."
    yield f"Rows with a wrong score: {wrong} by saker. onnxmltools has some in {len(off)} kinds, and rejects {rejected} kinds."
    yield from _command(result)
    largest = sorted(off, key=lambda kind: kind["plain"]["rows_off"] / kind["plain"]["rows"], reverse=True)[:8]

    def draw(axes: Axes) -> None:
        shares = [100 * kind["plain"]["rows_off"] / kind["plain"]["rows"] for kind in largest]
        names = [kind["name"].replace("_", " ") for kind in largest]
        series = [("saker", charts.SAKER, [0.0] * len(largest)), ("onnxmltools", charts.BASELINE, shares)]
        charts.bars(axes, names, series, "rows like those of training with a wrong score, %")

    yield from _chart(images, "exact.svg", "Share of rows with a wrong score: saker 0, onnxmltools up to 100 %", draw, 3.8)
    yield "[All kinds, defect by defect](explanation/onnxmltools.md).\n"


def _chaos(result: dict[str, Any], images: dict[str, str]) -> Iterator[str]:
    yield "## Nothing lost\n"
    yield "A pool of two workers at 1,000 records/s with 1 % malformed records, broken on purpose. Every score is compared with"
    yield "LightGBM's, every rejection with its reason. *Repeated* results occur with at least once only: a killed worker"
    yield "has scored records since its last commit, and many of them while it works off a backlog."
    yield from _command(result)
    head = ("fault", "delivery", "sent", "scored", "rejected", "lost", "wrong", "out of order", "repeated")
    names = ("sent", "scored", "rejected", "lost", "wrong", "disorder", "repeated")
    rows = [
        (_FAULTS[one["trouble"]], one["delivery"].replace("_", " "), *(f"{one[name]:,}" for name in names))
        for one in result["ledgers"]
    ]
    yield from _table(head, rows)

    def draw(axes: Axes) -> None:
        sums = {name: sum(one[name] for one in result["ledgers"]) for name in names}
        shown = ("sent", "scored", "rejected", "lost", "wrong", "disorder")
        labels = [("out of order" if name == "disorder" else name) for name in shown]
        charts.bars(axes, labels, [("all faults", charts.SAKER, [sums[name] for name in shown])], "records")

    yield from _chart(images, "chaos.svg", "Ledger of the chaos run: lost 0, wrong 0, out of order 0", draw, 2.6)


_FAULTS = {
    "workers killed": "`kill -9` of a random worker every second",
    "parent killed": "`kill -9` of the parent every 12 s",
    "stopped and started": "SIGTERM and restart every 10 s",
    "broker away": "broker killed and away for 10 s",
    "second pool": "second pool joins and leaves every 5 s",
    "models": "three model changes, one of them broken",
    "all": "all of these together",
}
_SECTIONS: dict[str, Callable[[dict[str, Any], dict[str, str]], Iterator[str]]] = {
    "exactness": _exactness,
    "chaos": _chaos,
    "peers": _peers,
    "e2e": _e2e,
    "backlog": _backlog,
    "trees": _timed(
        "Trees",
        "Trees to raw sums on one core. All native variants give the same bits; onnxruntime has one thread.",
        "model",
    ),
    "rows": _timed(
        "Decoding and encoding",
        "JSON to the float32 matrix, and scores to JSON, in batches of 256. The alternatives check no value.",
        "records",
    ),
    "nested": _timed(
        "Decoding nested JSON",
        "The same records with ten fields in each of five objects, and flat. orjson checks no value.",
        "records",
    ),
    "avro": _timed(
        "Decoding Avro",
        "The same records as nullable doubles and strings, read by a program for their schema. fastavro checks no value.",
        "records",
    ),
    "protobuf": _timed(
        "Decoding Protobuf",
        "The same records as optional fields of proto3. upb is the parser of Google's protobuf package.",
        "records",
    ),
    "pipeline": _timed(
        "The whole pipeline without Kafka",
        "Bytes to bytes: decode, score and encode. The Python loop uses orjson, numpy and onnxruntime, and checks nothing.",
        "model",
    ),
}


def main() -> None:
    text, images = page(ROOT / results.FOLDER)
    PAGE.write_text(text)
    IMAGES.mkdir(exist_ok=True)
    for name, image in images.items():
        (IMAGES / name).write_text(image)


if __name__ == "__main__":
    main()
