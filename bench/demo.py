"""The whole line on a local stack, and a check of every answer. `make demo` runs it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
from lightgbm import Booster
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.collect import Arrived, read_topic
from bench.load import DUE_HEADER, Sent, keyed, replay
from bench.malformed import Malformed, malformed
from deploy.local.server import Server, answers, free_port
from deploy.local.stack import RAW, REJECTED, SCORED, Stack, local_stack
from engine.contract import Contract
from engine.errors import SakerError
from engine.kafka import Message
from export import publish
from training import synthetic, track
from training.fit import Settings, Trained, build_matrix, train
from training.tables import to_records

TRAINED, SCORED_ROWS, WORKERS, RATE = 50_000, 20_000, 2, 2_000.0
_TOLERANCE = 1e-6

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
        try:
            settings = Settings()
            trained = train(synthetic.frame(TRAINED), settings, lambda text: say(f"  {text}"))
            clock.done("train", f"ROC AUC {trained.metrics['roc_auc']:.4f} on the newest 15 %")
            stack = starting.result()
            clock.done("stack", f"Kafka {stack.bootstrap_servers}, MLflow {stack.tracking_uri}")
            track.log_run(trained, settings, {"generate": TRAINED}, stack.tracking_uri)
            exported = publish.export_run("latest", stack.tracking_uri, lambda text: say(f"  {text}"))
            clock.done(
                "export", f"{len(exported.model.SerializeToString()):,} bytes of ONNX as fraud/{exported.version}"
            )
            _, why = publish.promote(trained.records, trained.labels.tolist(), stack.tracking_uri)
            clock.done("promote", why)
            last_line = _stream(stack, trained, folder, clock, say)
        finally:
            starting.result()
            opened.__exit__(None, None, None)
    clock.summary()
    say(last_line)


class _Clock:
    """Says what was done and how long it took."""

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
    with _serving(stack) as port:
        clock.done("serve", f"{WORKERS} workers, metrics at http://127.0.0.1:{port}/metrics")
        with ThreadPoolExecutor(2) as readers:
            scored = readers.submit(read_topic, stack.bootstrap_servers, SCORED, len(records))
            rejected = readers.submit(read_topic, stack.bootstrap_servers, REJECTED, len(bad))
            sent = replay(
                _mixed(records, bad),
                bootstrap_servers=stack.bootstrap_servers,
                topic=RAW,
                rate=RATE,
            )
            results, rejections = scored.result(), rejected.result()
        clock.done("replay", f"{sent.acknowledged:,} records at {sent.sent / sent.seconds:,.0f} a second")
    last_line = _count(sent, results, rejections)
    _check_scores(trained.booster, trained.contract, records, results)
    _check_rejections(bad, rejections)
    clock.done("check", f"every score equals LightGBM's within {_TOLERANCE:g}, every rejection has its reason")
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


@contextmanager
def _serving(stack: Stack) -> Iterator[int]:
    """`saker serve`, as a user starts it, but under a guard: it ends with the demo. The value is its metrics port."""
    port = free_port()
    server = Server("serve")
    command = [sys.executable, "-m", "saker", "serve", "--model", "fraud@champion", "--workers", str(WORKERS)]
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


def _count(sent: Sent, results: list[Arrived], rejections: list[Arrived]) -> str:
    """The last line, from what lies in the output topics: a record is known by where its input was."""
    identifiers = Counter(orjson.loads(message.value())["TransactionID"] for message, _ in results)
    places = Counter(
        (_header(message, "saker.error.partition"), _header(message, "saker.error.offset")) for message, _ in rejections
    )
    distinct = len(identifiers) + len(places)
    duplicated = len(results) + len(rejections) - distinct
    lost = sent.sent - distinct
    scored, rejected = len(identifiers), len(places)
    line = f"demo: sent {sent.sent}, scored {scored}, rejected {rejected}, lost {lost}, duplicated {duplicated}"
    if lost or duplicated or sent.acknowledged != sent.sent:
        raise DemoFailed(line)
    return line


def _check_scores(booster: Booster, contract: Contract, records: list[bytes], results: list[Arrived]) -> None:
    matrix, _ = build_matrix(contract, records)
    expected = booster.predict(matrix, num_threads=1)
    answers = {a["TransactionID"]: a["fraud_score"] for a in (orjson.loads(message.value()) for message, _ in results)}
    given = np.array([answers[orjson.loads(record)["TransactionID"]] for record in records])
    worst = float(np.abs(given - expected).max())
    if not worst <= _TOLERANCE:
        raise DemoFailed(f"a score differs from LightGBM's by {worst:.3g}")


def _check_rejections(bad: list[Malformed], rejections: list[Arrived]) -> None:
    came = {message.key().decode(): message for message, _ in rejections}
    for mistake in bad:
        message = came.get(mistake.kind)
        if message is None:
            raise DemoFailed(f"no rejection of the record that is {mistake.kind}")
        told = (message.value(), _header(message, "saker.error.code"), _header(message, "saker.error.field"))
        if told != (mistake.value, mistake.code, mistake.field):
            raise DemoFailed(
                f"{mistake.kind}: expected {mistake.code} of {mistake.field!r}, got {told[1]} of {told[2]!r}"
            )


def _header(message: Message, name: str) -> str:
    value: bytes = dict(message.headers() or ())[name]
    return value.decode()


def _report(results: list[Arrived], sent: Sent, folder: Path, say: Say) -> None:
    milliseconds = np.array([(at - int(_header(message, DUE_HEADER))) / 1e6 for message, at in results])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    say(f"throughput {len(results) / sent.seconds:,.0f} scores/s; due to read back: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    if sent.latest_seconds > 0.1:  # noqa: PLR2004
        say(f"  (the load itself was up to {sent.latest_seconds * 1000:.0f} ms behind its schedule)")
    say("highest scores:")
    answers = [orjson.loads(message.value()) for message, _ in results]
    for answer in sorted(answers, key=lambda a: -a["fraud_score"])[:10]:
        say(f"  {answer['TransactionID']}  {answer['fraud_score']:.4f}  {'fraud' if answer['is_fraud'] else ''}")
    picture = folder / "latency.png"
    _histogram(milliseconds, picture)
    say(f"latency histogram: {picture}")


def _histogram(milliseconds: NDArray[np.float64], path: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    bins = np.geomspace(max(milliseconds.min(), 0.1), milliseconds.max() + 1, 60).tolist()
    axes.hist(milliseconds, bins=bins)
    axes.set(xscale="log", xlabel="ms from due to read back", ylabel="records", title="Scoring latency")
    figure.savefig(path, dpi=110)
