"""The whole line on a local stack, and a check of every answer. `make demo` runs it."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from lightgbm import Booster
from matplotlib.figure import Figure
from numpy.typing import NDArray

from saker.commands.promotion import decide
from saker.deploy.local.server import Server, answers, free_port
from saker.deploy.local.stack import RAW, REJECTED, SCORED, Stack, create_topics, local_stack, warm_up
from saker.engine.contract import Contract
from saker.engine.errors import SakerError
from saker.engine.kafka.reader import Record, read_topic
from saker.engine.kafka.replay import Sent, keyed, replay
from saker.engine.onnx_trees import SCORE_TOLERANCE
from saker.export.features_file import read_velocity
from saker.export.proven_export import export_proven
from saker.export.registry import publish
from saker.training import behaviour, synthetic, track
from saker.training.fit import Settings, Trained, build_matrix, train
from saker.training.malformed import Malformed, malformed
from saker.training.tables import to_records

TRAINED, SCORED_ROWS, WORKERS, RATE = 50_000, 20_000, 2, 2_000.0
PAYMENTS, STREAMED = 60_000, 10_000
_PAYMENTS = "-payments"  # of the topics for them

Say = Callable[[str], None]


class DemoFailed(SakerError):
    """Something in the demo did not come out as it must."""


def run(folder: Path, say: Say) -> None:
    """Run the demo and leave its report in `folder`; raises `DemoFailed` when a record or a score is not right."""
    folder.mkdir(parents=True, exist_ok=True)
    clock = _Clock(say)
    with ThreadPoolExecutor(1) as aside:
        # The servers start while the model is trained; both take a while, and neither needs the other yet.
        opened = local_stack()
        starting = aside.submit(opened.__enter__)
        warm = aside.submit(lambda: warm_up(starting.result().bootstrap_servers))
        try:
            settings = Settings()
            trained = train(synthetic.frame(TRAINED), settings, lambda text: say(f"  {text}"))
            clock.done("train", f"ROC AUC {trained.metrics['roc_auc']:.4f} on the newest 15 %")
            stack = starting.result()
            warm.result()
            clock.done("stack", f"Kafka {stack.bootstrap_servers}, MLflow {stack.tracking_uri}")
            track.log_run(trained, settings, {"generate": TRAINED}, stack.tracking_uri)
            exported = publish.export_run("latest", stack.tracking_uri, lambda text: say(f"  {text}"))
            clock.done("export", f"{len(exported.model.SerializeToString()):,} bytes of ONNX as fraud/{exported.version}")
            why = decide(None, settings.label, None, settings.id_field, (0.0, 0.7), stack.tracking_uri).why
            clock.done("promote", why)
            last_line = _stream(stack, trained, folder, clock, say)
            _velocity(stack, folder, clock)
        finally:
            starting.result()
            opened.__exit__(None, None, None)
    clock.summary()
    say(last_line)


class _Clock:
    """Reports each stage and its duration."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._started = self._last = time.perf_counter()
        self._stages: list[tuple[str, float]] = []

    def done(self, stage: str, what: str) -> None:
        now = time.perf_counter()
        self._stages.append((stage, now - self._last))
        self._say(f"[{now - self._started:5.1f} s] {stage}: {what}")
        self._last = now

    def summary(self) -> None:
        self._say("stages: " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self._stages))


def _stream(stack: Stack, trained: Trained, folder: Path, clock: _Clock, say: Say) -> str:
    """Serve, replay, read back, check; the last line of the demo."""
    table = synthetic.frame(SCORED_ROWS, first=TRAINED).drop(columns=["isFraud"])
    records = to_records(table)
    bad = list(malformed(records[0]))
    with _serving(stack, "fraud@champion") as port:
        clock.done("serve", f"{WORKERS} workers, metrics at http://127.0.0.1:{port}/metrics")
        # Load and readers in separate processes: threads of one process would wait for each other and measure that.
        with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as processes:
            scored = processes.submit(read_topic, stack.bootstrap_servers, SCORED, len(records))
            rejected = processes.submit(read_topic, stack.bootstrap_servers, REJECTED, len(bad))
            load = processes.submit(
                replay,
                list(_mixed(records, bad)),
                bootstrap_servers=stack.bootstrap_servers,
                topic=RAW,
                rate=RATE,
            )
            sent, results, rejections = load.result(), scored.result(), rejected.result()
        clock.done("replay", f"{sent.acknowledged:,} records at {sent.sent / sent.seconds:,.0f} records/s")
    last_line = _count(sent, results, rejections)
    _check_scores(trained.booster, trained.contract, records, results)
    _check_rejections(bad, rejections)
    clock.done("check", f"every score equals LightGBM's within {SCORE_TOLERANCE:g}, every rejection has its reason")
    _report(results, sent, folder, say)
    return last_line


def _mixed(records: list[bytes], bad: list[Malformed]) -> Iterator[tuple[bytes | None, bytes | None]]:
    """The malformed records spread evenly among the good ones; each has its kind as its key."""
    step = len(records) // len(bad)
    for number, pair in enumerate(keyed(records, "card1")):
        yield pair
        if number % step == step // 2 and number // step < len(bad):
            mistake = bad[number // step]
            yield mistake.kind.encode(), mistake.value


def _velocity(stack: Stack, folder: Path, clock: _Clock) -> None:
    """Payments whose fraud shows over time: a model with velocity features, one without, and the first one in a pool."""
    table = behaviour.payments(PAYMENTS)
    settings = Settings(label="is_fraud", time="time", id_field="id")
    without = train(table, settings).metrics
    trained = train(table, replace(settings, velocity=read_velocity(behaviour.FEATURES)))
    figures = ", ".join(
        f"{name} {without[key]:.3f} without, {trained.metrics[key]:.3f} with"
        for name, key in (("ROC AUC", "roc_auc"), ("PR AUC", "pr_auc"))
    )
    clock.done("velocity", f"{len(trained.contract.velocity)} velocity features: {figures}")
    model = folder.absolute() / "velocity.onnx"
    model.write_bytes(export_proven(trained.booster, trained.contract).data)
    create_topics(stack.bootstrap_servers, 4, _PAYMENTS)
    records = to_records(behaviour.payments(STREAMED, seed=1).drop(columns=["is_fraud"]))
    half = len(records) // 2
    options = [*("--group", "payments"), *("--state", str(folder.absolute() / "state"))]
    options += [*("--input", RAW + _PAYMENTS), *("--output", SCORED + _PAYMENTS), *("--rejected", REJECTED + _PAYMENTS)]
    results: list[Record] = []
    for start in (0, half):  # the second pool has the histories of the first one
        part = records[start : start + half]
        with _serving(stack, str(model), options):
            replay(keyed(part, "card"), bootstrap_servers=stack.bootstrap_servers, topic=RAW + _PAYMENTS)
            results = read_topic(stack.bootstrap_servers, SCORED + _PAYMENTS, start + half)
    if len(results) != len(records):
        raise DemoFailed(f"velocity features: {len(results)} results of {len(records)} payments")
    _check_scores(trained.booster, trained.contract, records, results)
    clock.done("check", f"{len(records):,} payments through a restart: every velocity feature and score is that of training")


@contextmanager
def _serving(stack: Stack, model: str, options: Sequence[str] = ()) -> Iterator[int]:
    """`saker serve`, as a user starts it, but under a guard: it ends with the demo. The value is its metrics port."""
    port = free_port()
    server = Server("serve")
    command = [sys.executable, "-m", "saker", "serve", "--model", model, "--workers", str(WORKERS), *options]
    command += ["--bootstrap-servers", stack.bootstrap_servers, "--metrics-port", str(port)]
    try:
        server.start(command, {"MLFLOW_TRACKING_URI": stack.tracking_uri})
        server.wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        yield port
        log = server.log_tail()
    finally:
        code = server.stop()
    if code:
        raise DemoFailed(f"saker serve ended with {code}{log}")


def _count(sent: Sent, results: list[Record], rejections: list[Record]) -> str:
    """The last line, from the contents of the output topics: a rejection is identified by the position of its input."""
    identifiers = Counter(_answer(record)["TransactionID"] for record in results)
    places = Counter((r.header("saker.error.partition"), r.header("saker.error.offset")) for r in rejections)
    distinct = len(identifiers) + len(places)
    duplicated = len(results) + len(rejections) - distinct
    lost = sent.sent - distinct
    scored, rejected = len(identifiers), len(places)
    line = f"demo: sent {sent.sent}, scored {scored}, rejected {rejected}, lost {lost}, duplicated {duplicated}"
    if lost or duplicated or sent.acknowledged != sent.sent:
        raise DemoFailed(line)
    return line


def _check_scores(booster: Booster, contract: Contract, records: list[bytes], results: list[Record]) -> None:
    matrix = build_matrix(contract, records).matrix
    expected = booster.predict(matrix, num_threads=1)
    name = contract.id_field
    answers = {answer[name]: answer["fraud_score"] for answer in map(_answer, results)}
    given = np.array([answers[orjson.loads(record)[name]] for record in records])
    worst = float((np.abs(given - expected) / expected).max())
    if not worst <= SCORE_TOLERANCE:
        raise DemoFailed(f"a score differs from LightGBM's by a relative {worst:.3g}")


def _check_rejections(bad: list[Malformed], rejections: list[Record]) -> None:
    came = {record.key: record for record in rejections}
    for mistake in bad:
        record = came.get(mistake.kind.encode())
        if record is None:
            raise DemoFailed(f"no rejection of the record that is {mistake.kind}")
        told = (record.value, record.header("saker.error.code"), record.header("saker.error.field"))
        if told != (mistake.value, mistake.code, mistake.field):
            raise DemoFailed(f"{mistake.kind}: expected {mistake.code} of {mistake.field!r}, got {told[1]} of {told[2]!r}")


def _answer(record: Record) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(record.value or b"")
    return answer


def _report(results: list[Record], sent: Sent, folder: Path, say: Say) -> None:
    # A result keeps its record's timestamp, which the load set to the moment at which the record was due.
    milliseconds = np.array([record.read_at * 1000 - record.timestamp_ms for record in results])
    due = np.array([record.timestamp_ms for record in results])
    later = milliseconds[due >= due.min() + 1000]  # the broker compiles its code during the first second
    say(
        f"throughput {len(results) / sent.seconds:,.0f} scores/s; due to read back: {_quantiles(milliseconds)}; "
        f"after the first second {_quantiles(later)}"
    )
    if sent.latest_seconds > 0.1:  # noqa: PLR2004
        say(f"  (the load itself was up to {sent.latest_seconds * 1000:.0f} ms behind its schedule)")
    say("highest scores:")
    for answer in sorted(map(_answer, results), key=lambda a: -a["fraud_score"])[:10]:
        say(f"  {answer['TransactionID']}  {answer['fraud_score']:.4f}  {'fraud' if answer['is_fraud'] else ''}")
    picture = folder / "latency.png"
    _histogram(milliseconds, picture)
    say(f"latency histogram: {picture}")


def _quantiles(milliseconds: NDArray[np.float64]) -> str:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _histogram(milliseconds: NDArray[np.float64], path: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    bins = np.geomspace(max(milliseconds.min(), 0.1), milliseconds.max() + 1, 60).tolist()
    axes.hist(milliseconds, bins=bins)
    axes.set(xscale="log", xlabel="ms from due to read back", ylabel="records", title="Scoring latency")
    figure.savefig(path, dpi=110)
