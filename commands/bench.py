"""Benches: every figure of the README has its command here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from saker.commands.options import Json, Tracking, app, tell

bench = typer.Typer(help="Measure saker, the floor under it, and what people use instead.", no_args_is_help=True)
app.add_typer(bench, name="bench")

Broker = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="HOST:PORT of a Kafka broker; without it one is started, and stopped."),
]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="Length of a run.")]
WarmUp = Annotated[float, typer.Option("--warm-up", min=0, help="Seconds at the start of a run that do not count.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes of each contender.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for all percentiles and histograms.")]


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
    rates: Annotated[list[float] | None, typer.Option("--rate", min=1, help="Records a second; may be given again.")] = None,
    limit_ms: Annotated[
        float | None,
        typer.Option("--limit-ms", min=1, help="Without --rate: the highest rate with p99 below this and nothing lost."),
    ] = None,
    seconds: Seconds = 12,
    warm_up: WarmUp = 3,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Runs of each contender at each rate.")] = 5,
    workers: Workers = 1,
    arrivals: Annotated[Literal["poisson", "constant"], typer.Option("--arrivals", help="When records are due.")] = "poisson",
    contenders: Annotated[str, typer.Option("--contenders", help="By comma.")] = "echo,saker",
    bootstrap_servers: Broker = None,
    output: Output = None,
) -> None:
    """Latency from the moment a record was due (open loop), on a real Kafka, beside a bare echo in the same run."""
    from saker.bench.harness import results
    from saker.bench.harness.contenders import ALL
    from saker.bench.harness.e2e import Run
    from saker.bench.harness.rate_search import at_rate, highest_rate, median_run, runner

    if (rates is None) == (limit_ms is None):
        raise typer.BadParameter("give either --rate or --limit-ms")
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
    rate: Annotated[float, typer.Option("--rate", min=1, help="The common rate, records a second.")] = 2_000,
    limit_ms: Annotated[float, typer.Option("--limit-ms", min=1, help="A rate is kept while p99 is below this.")] = 1_000,
    seconds: Seconds = 10,
    warm_up: WarmUp = 3,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Runs at the common rate, and at half of the highest.")] = 3,
    workers: Workers = 1,
    contenders: Annotated[str | None, typer.Option("--contenders", help="By comma; without it all.")] = None,
    bootstrap_servers: Broker = None,
    output: Output = None,
) -> None:
    """The same records, model, broker and load through what people use today: highest rate, latency, CPU, memory.

    Each peer runs in processes of its own and, where it needs one, in a locked environment of its own. One that cannot be
    installed or started is listed with the reason.
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


@bench.command(epilog="Example: `saker bench gate --base HEAD~1`")
def gate(
    base: Annotated[str, typer.Option("--base", help="Git revision to compare this tree with.")],
    rounds: Annotated[int, typer.Option("--rounds", min=3, help="Rounds of the pipeline, without Kafka.")] = 9,
    e2e_rounds: Annotated[int, typer.Option("--e2e-rounds", min=0, help="Rounds end to end on a local Kafka; 0 for none.")] = 4,
) -> None:
    """Fail if this tree is slower than a base, beyond what base against base shows by itself, or gives other scores.

    Judges p99 and CPU a record of the pipeline and of the end-to-end run, from rounds in which both take turns.
    """
    from saker.bench.gate import gate as the_gate

    verdicts = the_gate.run(base, rounds=rounds, e2e_rounds=e2e_rounds, say=_said)
    for verdict in verdicts:
        typer.echo(str(verdict))
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise the_gate.GateFailed(f"slower than {base}: {'; '.join(f'{v.stage}, {v.name}' for v in failed)}")


Models = Annotated[list[str], typer.Argument(help="Reference models: S, M, L; C has categories.")]
StageSeconds = Annotated[float, typer.Option("--seconds", min=0.1, help="For each line.")]
Benchmark = Annotated[Path | None, typer.Option("-o", "--output", help="pytest-benchmark's JSON, which its `compare` takes.")]


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
    batch: Annotated[str, typer.Option("--batch", help="Rows a call, by comma.")] = "256,1",
    peers: Annotated[str, typer.Option("--peers", help="By comma; lleaves compiles M for a minute, L for longer.")] = (
        "onnxruntime,LightGBM,lignum"
    ),
    converted: Annotated[
        bool, typer.Option("--converted", help="The same trees as onnxmltools writes them, to scores, beside onnxruntime.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the constants by which the kernel chooses its way for few rows.")
    ] = False,
    seconds: StageSeconds = 1,
    output: Benchmark = None,
) -> None:
    """Trees to raw sums, the native variants compared with onnxruntime, LightGBM, lignum and lleaves."""
    if calibrate:
        from saker.bench.micro.calibrate import calibrate as measure

        for line in measure(models):
            typer.echo(line)
        return
    arguments = {"models": models, "batches": _batches(batch), "peers": peers.split(","), "by_onnxmltools": converted}
    _stages("trees", arguments, seconds, output)


@bench.command(epilog="Example: `saker bench rows`")
def rows(seconds: StageSeconds = 1, output: Benchmark = None) -> None:
    """JSON bytes to the matrix and scores to bytes, beside orjson, msgspec and the reference."""
    _stages("rows", {}, seconds, output)


@bench.command(epilog="Example: `saker bench worst --seconds 60`")
def worst(
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="In all.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="The same seed tries the same records.")] = 0,
) -> None:
    """Search for the record that takes the decoder longest for its size, of each kind of record that is made to do so."""
    from saker.bench.micro.worst import cost, search, usual

    ordinary = cost(usual())
    typer.echo(f"{'ordinary records':32} {ordinary:7.2f} ns of CPU a byte")
    for found in search(seconds, seed):
        times = found.ns_a_byte / ordinary
        typer.echo(f"{found.kind:32} {found.ns_a_byte:7.2f}  {times:6.1f} times (seed {found.seed}, {found.size:,} bytes)")


@bench.command(epilog="Example: `saker bench pipeline S M L`, or `saker bench pipeline fraud/8 --against fraud/7`")
def pipeline(
    models: Annotated[list[str], typer.Argument(help="Reference models (S, M, L), or one as `saker serve` takes it.")],
    batch: Annotated[str, typer.Option("--batch", help="Records a call, by comma.")] = "256,16,1",
    against: Annotated[str | None, typer.Option("--against", help="A model beside it, if it is there.")] = None,
    budget_us: Annotated[float | None, typer.Option("--budget-us", help="Fail above so many us of CPU a record.")] = None,
    budget_ratio: Annotated[float | None, typer.Option("--budget-ratio", help="Fail above so many times --against.")] = None,
    seconds: StageSeconds = 1,
    output: Benchmark = None,
    as_json: Json = False,
    tracking_uri: Tracking = None,
) -> None:
    """Bytes to bytes (decode, score, encode), beside a straight loop of orjson, numpy and onnxruntime, or another model.

    A budget is for the first number of --batch.
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
            _said(f"nothing to compare with: {error}")
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
    files: Annotated[list[Path], typer.Argument(help="Results of e2e and peers.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="One self-contained HTML page.")] = Path("bench.html"),
) -> None:
    """Results as one page with charts: latency by percentile, p99 by rate, stages, peers."""
    from saker.bench.harness.report import page

    output.write_text(page(files))
    typer.echo(f"written to {output}")
