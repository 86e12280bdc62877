"""`saker bench`: every figure in the documentation comes from one of these commands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from saker.commands.options import MEASURING, Json, RecordFormat, Tracking, app, tell

bench = typer.Typer(help="Measure saker next to baselines and alternatives.", no_args_is_help=True)
app.add_typer(bench, name="bench", rich_help_panel=MEASURING)

Broker = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="HOST:PORT of a Kafka broker (default: a local one, started and stopped)."),
]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="Duration of a run in seconds.")]
WarmUp = Annotated[float, typer.Option("--warm-up", min=0, help="Seconds at the start of a run that are not measured.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes per contender.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for percentiles and histograms of all runs.")]


@contextmanager
def broker(bootstrap_servers: str | None) -> Iterator[str]:
    from saker.bench.harness.open_loop import PARTITIONS
    from saker.deploy.local.stack import local_kafka, warm_up

    if bootstrap_servers:
        yield bootstrap_servers
        return
    typer.echo("starting Kafka ...", err=True)
    with local_kafka(PARTITIONS, lasting=True) as started:
        warm_up(started)
        yield started


def _said(text: object) -> None:
    typer.echo(f"  {text}", err=True)


@bench.command(epilog="Example: `saker bench e2e --rate 2000 --workers 2`; with `--limit-ms 50` it looks for the highest rate")
def e2e(
    rates: Annotated[list[float] | None, typer.Option("--rate", min=1, help="Records per second. Repeatable.")] = None,
    limit_ms: Annotated[
        float | None,
        typer.Option("--limit-ms", min=1, help="Without --rate: search for the highest rate with p99 below this limit in ms."),
    ] = None,
    seconds: Seconds = 12,
    warm_up: WarmUp = 3,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Runs per contender and rate.")] = 5,
    workers: Workers = 1,
    arrivals: Annotated[
        Literal["poisson", "constant"], typer.Option("--arrivals", help="Distribution of arrival times.")
    ] = "poisson",
    contenders: Annotated[str, typer.Option("--contenders", help="Contenders, separated by commas.")] = "baseline,saker",
    bootstrap_servers: Broker = None,
    output: Output = None,
) -> None:
    """Measure end-to-end latency on a real Kafka (open loop), next to a no-op baseline."""
    from saker.bench.harness import results
    from saker.bench.harness.contenders import ALL
    from saker.bench.harness.e2e import Run
    from saker.bench.harness.rate_search import at_rate, highest_rate, median_run, runner

    if (rates is None) == (limit_ms is None):
        raise typer.BadParameter("expected either --rate or --limit-ms")
    names = contenders.split(",")
    if unknown := sorted(set(names) - set(ALL)):
        raise typer.BadParameter(f"unknown contenders {', '.join(unknown)}; there are {', '.join(ALL)}")
    chosen = [ALL[name] for name in names]
    runs: list[Run] = []
    best: list[Run] = []
    with broker(bootstrap_servers) as servers:
        run = runner(servers, seconds=seconds, warm_up_seconds=warm_up, workers=workers, arrivals=arrivals)
        for contender in chosen if limit_ms is not None else ():
            _said(f"(not counted) {run(contender, 20_000)}")
            highest, tried = highest_rate(run, contender, 20_000, limit_ms or 0, _said)
            runs += tried
            best += [highest] if highest else []
        for rate in rates or ():
            found = at_rate(run, chosen, rate, rounds, _said)
            runs += [told for many in found.values() for told in many]
            best += [median_run(many) for many in found.values()]
    for told in best:
        typer.echo(str(told))
        if told.stages_ms:
            stages = ", ".join(f"{stage} {ms:.3f}" for stage, ms in told.stages_ms.items())
            typer.echo(f"  ms of a mean batch of {told.batch_records:.1f}: {stages}")
    if output:
        results.write(output, "e2e", runs)
        typer.echo(f"written to {output}")


@bench.command(epilog="Example: `saker bench peers -o bench/results/peers.json`")
def peers(
    rate: Annotated[float, typer.Option("--rate", min=1, help="Common rate in records per second.")] = 2_000,
    limit_ms: Annotated[float, typer.Option("--limit-ms", min=1, help="Limit of p99 in ms for the highest rate.")] = 1_000,
    seconds: Seconds = 10,
    warm_up: WarmUp = 3,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Runs at the common rate and at half of the highest rate.")
    ] = 3,
    workers: Workers = 1,
    contenders: Annotated[
        str | None, typer.Option("--contenders", help="Contenders, separated by commas (default: all).")
    ] = None,
    bootstrap_servers: Broker = None,
    output: Output = None,
) -> None:
    """Compare with alternatives under the same load: highest rate, latency, CPU and memory.

    Each alternative runs in separate processes and, where it needs one, in a separate locked environment. One that cannot
    be installed or started is listed with the reason.
    """
    from saker.bench.harness import results
    from saker.bench.harness.contenders import ALL
    from saker.bench.harness.rate_search import runner
    from saker.bench.peers.compare import compare

    names = contenders.split(",") if contenders else [name for name in ALL if name != "saker (kernels off)"]
    if unknown := sorted(set(names) - set(ALL)):
        raise typer.BadParameter(f"unknown contenders {', '.join(unknown)}; there are {', '.join(ALL)}")
    with broker(bootstrap_servers) as servers:
        run = runner(servers, seconds=seconds, warm_up_seconds=warm_up, workers=workers)
        compared = compare(run, [ALL[name] for name in names], rate=rate, limit_ms=limit_ms, rounds=rounds, say=_said)
    for line in compared.table():
        typer.echo(line)
    if output:
        results.write(output, "peers", compared.runs, peers=compared.rows, missing=compared.missing)
        typer.echo(f"written to {output}")


@bench.command(epilog="Example: `saker bench backlog --records 400000`")
def backlog(
    records: Annotated[int, typer.Option("--records", min=1000, help="Records waiting in the topic.")] = 400_000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Runs per contender.")] = 5,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Limit of a run in seconds, for slow contenders.")] = 60,
    contenders: Annotated[str, typer.Option("--contenders", help="Contenders, separated by commas.")] = (
        "baseline,saker,saker (exactly once),python loop"
    ),
    apart: Annotated[bool, typer.Option("--apart", help="Give the broker one core and the contender the others.")] = False,
    output: Output = None,
) -> None:
    """Measure how fast one worker drains a waiting topic, next to a no-op baseline and a Python loop."""
    from dataclasses import asdict

    from saker.bench.harness import results
    from saker.bench.scenarios import backlog as drained

    names = contenders.split(",")
    if unknown := sorted(set(names) - set(drained.CONTENDERS)):
        raise typer.BadParameter(f"unknown contenders {', '.join(unknown)}; there are {', '.join(drained.CONTENDERS)}")
    found = drained.run(names, records=records, rounds=rounds, most_seconds=seconds, apart=apart, say=_said)
    for who, runs in found.items():
        typer.echo(f"{who}: {drained.median(runs)} (the run of {len(runs)} with the median rate)")
    if output:
        drains = [{"contender": who, **asdict(run)} for who, runs in found.items() for run in runs]
        results.write_plain(output, "backlog", records=records, apart=apart, drains=drains)
        typer.echo(f"written to {output}")


@bench.command(epilog="Example: `saker bench exactness`")
def exactness(output: Output = None) -> None:
    """Count wrong scores of saker's and of onnxmltools' conversion, on a small model of every kind."""
    from dataclasses import asdict

    from saker.bench.harness.results import write_plain
    from saker.export.selfcheck.converters import measure
    from saker.export.selfcheck.model_zoo import KINDS

    rows = []
    for name in KINDS:
        rows.append(measure(name))
        typer.echo(str(rows[-1]))
    if output:
        write_plain(output, "exactness", kinds=[asdict(row) for row in rows])
        typer.echo(f"written to {output}")


@bench.command(epilog="Example: `saker bench gate --base HEAD~1`")
def gate(
    base: Annotated[str, typer.Option("--base", help="Git revision to compare this tree with.")],
    rounds: Annotated[int, typer.Option("--rounds", min=3, help="Rounds of the pipeline benchmark, without Kafka.")] = 9,
    e2e_rounds: Annotated[
        int, typer.Option("--e2e-rounds", min=0, help="Rounds of the end-to-end benchmark on a local Kafka; 0 skips it.")
    ] = 4,
) -> None:
    """Fail if this tree is slower than a base revision beyond the noise, or gives different scores.

    Compares p99 and CPU per record, of the pipeline and end to end, in rounds that alternate between both trees. The
    noise is the difference between two measurements of the base.
    """
    from saker.bench.gate import gate as the_gate

    verdicts = the_gate.run(base, rounds=rounds, e2e_rounds=e2e_rounds, say=_said)
    for verdict in verdicts:
        typer.echo(str(verdict))
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise the_gate.GateFailed(f"slower than {base}: {'; '.join(f'{v.stage}, {v.name}' for v in failed)}")


Models = Annotated[list[str], typer.Argument(help="Reference models: S, M, L, and C with categories.")]
StageSeconds = Annotated[float, typer.Option("--seconds", min=0.1, help="Seconds per measurement.")]
Benchmark = Annotated[Path | None, typer.Option("-o", "--output", help="JSON file in the format of pytest-benchmark.")]


def _stages(stage: str, arguments: dict[str, Any], seconds: float, output: Path | None) -> None:
    from saker.bench.micro.runner import lines, run

    for line in lines(run(stage, arguments, seconds, output)):
        typer.echo(line)


def _batches(text: str) -> list[int]:
    from saker.bench.data.reference_models import N_ROWS

    numbers = [int(number) if number.isdecimal() else 0 for number in text.split(",")]
    if not all(0 < number <= N_ROWS for number in numbers):
        raise typer.BadParameter(f"--batch: expected numbers from 1 to {N_ROWS}, by comma, got {text}")
    return numbers


@bench.command(epilog="Example: `saker bench trees S M L`")
def trees(
    models: Models,
    batch: Annotated[str, typer.Option("--batch", help="Batch sizes, separated by commas.")] = "256,1",
    peers: Annotated[str, typer.Option("--peers", help="Libraries, separated by commas; lleaves compiles for minutes.")] = (
        "onnxruntime,LightGBM,lignum"
    ),
    converted: Annotated[
        bool, typer.Option("--converted", help="Measure the same trees as converted by onnxmltools, next to onnxruntime.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the constants by which the kernel chooses its algorithm for few rows.")
    ] = False,
    seconds: StageSeconds = 1,
    output: Benchmark = None,
) -> None:
    """Measure the tree kernels next to onnxruntime, LightGBM, lignum and lleaves."""
    if calibrate:
        from saker.bench.micro.calibrate import calibrate as measure

        for line in measure(models):
            typer.echo(line)
        return
    arguments = {"models": models, "batches": _batches(batch), "peers": peers.split(","), "by_onnxmltools": converted}
    _stages("trees", arguments, seconds, output)


@bench.command(epilog="Example: `saker bench rows --format avro`")
def rows(
    record_format: Annotated[
        Literal["json", "nested", "avro", "protobuf"],
        typer.Option("--format", help="Format of the records; `nested` is JSON with ten fields per object."),
    ] = "json",
    seconds: StageSeconds = 1,
    output: Benchmark = None,
) -> None:
    """Measure decoding and encoding next to orjson, msgspec, fastavro, upb and the reference."""
    if record_format == "json":
        _stages("rows", {}, seconds, output)
    else:
        _stages("formats", {"kind": record_format}, seconds, output)


@bench.command(epilog="Example: `saker bench worst --seconds 60`")
def worst(
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Duration of the search in seconds.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the search.")] = 0,
    record_format: RecordFormat = "json",
) -> None:
    """Search for the records that take longest to decode per byte. Of Avro and Protobuf, a fixed list of kinds is measured."""
    from saker.bench.micro import worst, worst_binary

    if record_format == "json":
        found: Iterator[worst.Found] = itertools.chain(
            [worst.Found("ordinary records", worst.cost(worst.usual()), 0, 0)], worst.search(seconds, seed)
        )
    else:
        found = worst_binary.search(record_format)
    ordinary = next(found)
    typer.echo(f"{ordinary.kind:36} {ordinary.ns_a_byte:7.2f} ns of CPU a byte")
    for one in found:
        times = one.ns_a_byte / ordinary.ns_a_byte
        typer.echo(f"{one.kind:36} {one.ns_a_byte:7.2f}  {times:6.1f} times (seed {one.seed}, {one.size:,} bytes)")


@bench.command(epilog="Example: `saker bench pipeline S M L`, or `saker bench pipeline fraud/8 --against fraud/7`")
def pipeline(
    models: Annotated[list[str], typer.Argument(help="Reference models (S, M, L), or models as for `saker serve`.")],
    batch: Annotated[str, typer.Option("--batch", help="Batch sizes, separated by commas.")] = "256,16,1",
    against: Annotated[str | None, typer.Option("--against", help="Model to compare with, if it exists.")] = None,
    budget_us: Annotated[
        float | None, typer.Option("--budget-us", help="Limit of CPU per record in µs, for the first batch size.")
    ] = None,
    budget_ratio: Annotated[
        float | None, typer.Option("--budget-ratio", help="Limit of CPU per record as a multiple of --against.")
    ] = None,
    seconds: StageSeconds = 1,
    output: Benchmark = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Measure the whole pipeline (decode, score, encode) without Kafka, next to a Python loop or another model.

    The Python loop uses orjson, numpy and onnxruntime.
    """
    from saker.bench.micro.runner import lines, over_budget, run
    from saker.engine import config
    from saker.engine.errors import ModelRefused, SakerError
    from saker.engine.model.registry import locate

    uri = tracking_uri or config.tracking_uri()
    if against is not None:
        try:
            locate(against, uri)
            models = [*models, against]
        except ModelRefused as error:
            _said(f"--against is skipped: {error}")
    timed = run("pipeline", {"models": models, "batches": _batches(batch), "tracking_uri": uri}, seconds, output)
    for line in lines(timed):
        typer.echo(line, err=as_json)
    reasons = over_budget(timed, budget_us, budget_ratio)
    told = {"models": [{"model": one.who, "group": one.group, "record_us": one.record_us} for one in timed], "failed": reasons}
    if reasons:
        raise SakerError(f"over its budget: {'; '.join(reasons)}")
    tell("within its budget" if budget_us or budget_ratio else "", told, as_json)


@bench.command(epilog="Example: `saker bench report bench/results/*.json -o bench.html`")
def report(
    files: Annotated[list[Path], typer.Argument(help="Result files of `e2e` and `peers`.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the page; it needs no network.")] = Path(
        "bench.html"
    ),
) -> None:
    """Write an HTML page with charts of results."""
    from saker.bench.harness.report import page

    output.write_text(page(files))
    typer.echo(f"written to {output}")
