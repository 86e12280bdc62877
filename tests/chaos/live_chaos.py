"""Every fault for 30 seconds and all of them for two minutes, in both delivery modes: `make chaos` (about 20 minutes).

    steady load --> input topic --> saker serve, broken again and again --> both output topics --> ledger

1 % of the records is malformed, in twenty ways. `make chaos` names this file, since `pytest tests` does not collect it; short
forms are in test_delivery.py and its neighbours. CHAOS_RESULTS=FILE keeps the ledgers as JSON, for the benchmark page.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import orjson
import pytest

from saker.bench.harness import results
from saker.deploy.local.kafka import Broker
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics
from saker.engine.kafka.reader import read_topic
from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.malformed import malformed
from saker.training.tables import to_records
from tests.support import velocity
from tests.support.broker import listener
from tests.support.ledger import Ledger, balance
from tests.support.periodic import every
from tests.support.serving import Serving, Topics, worker_ids

TOPICS = Topics(RAW, SCORED, REJECTED, "fraud-scorers")
RATE, SECONDS, SECONDS_OF_ALL = 1_000, 30, 120
BROKER_AWAY_SECONDS = 10
STARTS = 10
VELOCITY_RATE = 10_000.0


@dataclass
class Scene:
    """What can be broken. A pool that ends is replaced by one of the same name."""

    broker: Broker
    model: Path
    first_model: bytes
    delivery: str
    seconds: float
    chosen: random.Random = field(default_factory=lambda: random.Random(7))
    done: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    pool: Serving | None = None

    def serve(self, instance: str = "first") -> Serving:
        command = [sys.executable, "-m", "saker", "serve", "--model", str(self.model), "--model-poll", "0.5"]
        command += ["--workers", "2", "--instance", instance, "--metrics-port", "0", "--delivery", self.delivery]
        command += ["--bootstrap-servers", self.broker.bootstrap_servers]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        pool = Serving(process)
        pool.await_line("metrics at")  # it has its model
        return pool

    def kill_a_worker(self) -> None:
        with self.lock:
            if self.pool is not None and (workers := worker_ids(self.pool.process.pid)):
                os.kill(self.chosen.choice(workers), signal.SIGKILL)

    def kill_the_parent(self) -> None:
        with self.lock:
            assert self.pool is not None
            self.pool.stop(signal.SIGKILL)
            self.pool = self.serve()

    def stop_and_start(self) -> None:
        with self.lock:
            assert self.pool is not None
            stop_well(self.pool)
            self.pool = self.serve()

    def broker_away(self) -> None:
        os.kill(listener(self.broker.bootstrap_servers), signal.SIGKILL)
        self.done.wait(BROKER_AWAY_SECONDS)
        self.broker.start_again()
        self.broker.wait()

    def second_pool(self) -> None:
        with self.lock:
            other = self.serve("second")
        self.done.wait(5)
        stop_well(other)

    def change_the_model(self, number: int) -> None:
        """The same trees in another file; the second of three is broken, and no pool starts while it is there."""
        if number == 1:
            with self.lock:
                before = self.model.read_bytes()
                self.put(b"no model")
                self.done.wait(2)
                self.put(before)
        else:
            model = onnx.load_from_string(self.first_model)
            model.doc_string = f"change {number}"
            self.put(model.SerializeToString())

    def put(self, model: bytes) -> None:
        new = self.model.with_suffix(".new")
        new.write_bytes(model)
        new.replace(self.model)


def stop_well(pool: Serving) -> None:
    code = pool.stop()
    assert code == 0, pool.rest_of_log()


def at_shares(scene: Scene, stack: ExitStack, shares: list[float], act: Callable[[int], None]) -> None:
    """At these shares of the time, in a thread."""

    def run() -> None:
        passed = 0.0
        for number, share in enumerate(shares):
            if scene.done.wait((share - passed) * scene.seconds):
                return
            passed = share
            act(number)

    thread = threading.Thread(target=run)
    thread.start()
    stack.callback(thread.join)


def begin_workers_killed(scene: Scene, stack: ExitStack) -> None:
    stack.enter_context(every(1.0, scene.kill_a_worker))


def begin_parent_killed(scene: Scene, stack: ExitStack) -> None:
    stack.enter_context(every(12.0, scene.kill_the_parent))


def begin_stopped(scene: Scene, stack: ExitStack) -> None:
    stack.enter_context(every(10.0, scene.stop_and_start))


def begin_broker_away(scene: Scene, stack: ExitStack) -> None:
    at_shares(scene, stack, [0.3], lambda _: scene.broker_away())


def begin_second_pool(scene: Scene, stack: ExitStack) -> None:
    stack.enter_context(every(5.0, scene.second_pool))


def begin_models(scene: Scene, stack: ExitStack) -> None:
    at_shares(scene, stack, [0.2, 0.4, 0.6], scene.change_the_model)


TROUBLES = {
    "workers killed": [begin_workers_killed],
    "parent killed": [begin_parent_killed],
    "stopped and started": [begin_stopped],
    "broker away": [begin_broker_away],
    "second pool": [begin_second_pool],
    "models": [begin_models],
    "all": [
        begin_workers_killed,
        begin_parent_killed,
        begin_stopped,
        begin_broker_away,
        begin_second_pool,
        begin_models,
    ],
}


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker(lasting=True)
    try:
        broker.launch()
        broker.wait()
        create_topics(broker.bootstrap_servers, 4)
        yield broker
    finally:
        broker.stop()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("trouble", list(TROUBLES))
def test_nothing_is_lost(trouble: str, delivery: str, broker: Broker, generated_model: Any, tmp_path: Path) -> None:
    first_model = generated_model.path.read_bytes()
    (tmp_path / "fraud.onnx").write_bytes(first_model)
    seconds = SECONDS_OF_ALL if trouble == "all" else SECONDS
    scene = Scene(broker, tmp_path / "fraud.onnx", first_model, delivery, seconds)
    count = int(RATE * seconds)
    records: list[bytes | None] = list(to_records(synthetic.frame(count, seed=51).drop(columns=["isFraud"])))
    kinds = [kind.value for kind in malformed(records[0] or b"")]
    for number in range(0, count, 100):
        records[number] = kinds[number // 100 % len(kinds)]
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
    scene.pool = scene.serve()
    try:
        scene.pool.await_line("ready: every partition")
        with ExitStack() as stack:
            for begin in TROUBLES[trouble]:
                begin(scene, stack)
            stack.callback(scene.done.set)
            replay(pairs, bootstrap_servers=broker.bootstrap_servers, topic=RAW, rate=RATE)
        bad = {kind or b"" for kind in kinds}
        ledger = balance(broker.bootstrap_servers, TOPICS, count, bad, generated_model.expected_scores)
        assert (ledger.sent, ledger.lost, ledger.wrong, ledger.disorder) == (count, 0, 0, 0)
        assert ledger.rejected == len(range(0, count, 100))
        if delivery == "exactly_once":
            assert ledger.repeated == 0
        if trouble == "models":
            assert len(ledger.versions) == 3
        if path := os.environ.get("CHAOS_RESULTS"):
            keep(Path(path), trouble, delivery, ledger)
        stop_well(scene.pool)
    finally:
        scene.pool.process.kill()
        scene.pool.process.wait()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_ten_million_velocity_features_are_those_of_the_log(delivery: str, broker: Broker, tmp_path: Path) -> None:
    """Six features of each record, while everything breaks and a second model with other features comes and goes."""
    (tmp_path / "other").mkdir()
    model = velocity.trained(tmp_path)
    other = velocity.trained(tmp_path / "other", velocity.OTHERS, 30)
    count = 10_200_000 // len(velocity.VELOCITY)
    scene = Scene(broker, model.path, model.path.read_bytes(), delivery, count / VELOCITY_RATE)
    names = {model.name: model, other.name: other}
    scene.pool = scene.serve()
    try:
        scene.pool.await_line("ready: every partition")
        with ExitStack() as stack:
            for begin in (begin_workers_killed, begin_parent_killed, begin_stopped, begin_broker_away, begin_second_pool):
                begin(scene, stack)
            at_shares(scene, stack, [0.3, 0.6], lambda number: scene.put((other, model)[number].data))
            stack.callback(scene.done.set)
            payments = velocity.payments(count, cards=20_000, spacing_ms=20)
            replay(payments, bootstrap_servers=broker.bootstrap_servers, topic=RAW, rate=VELOCITY_RATE)
        log = read_topic(broker.bootstrap_servers, RAW, count)
        expected = {name: one.expected_scores(log, "auto") for name, one in names.items()}
        results = read_topic(broker.bootstrap_servers, SCORED, count, distinct=lambda one: orjson.loads(one.value or b"")["id"])
        answers = [orjson.loads(one.value or b"") for one in results]
        wrong = [answer for answer in answers if answer["fraud_score"] != expected[answer["model"]][answer["id"]]]
        assert not wrong, f"{len(wrong)} of {len(answers)}, first {wrong[0]}"
        assert {answer["model"] for answer in answers} == set(names)
        if delivery == "exactly_once":
            assert len(answers) == count
        print(f"{count:,} records, {len(answers):,} results, 0 differ")  # noqa: T201 - it is what one wants to see
        stop_well(scene.pool)
    finally:
        scene.pool.process.kill()
        scene.pool.process.wait()


def keep(path: Path, trouble: str, delivery: str, ledger: Ledger) -> None:
    """Add a ledger to the file, which the first one starts."""
    counts = {name: count for name, count in asdict(ledger).items() if name != "versions"}
    told = json.loads(path.read_text()) if path.exists() else results.about("chaos", "make chaos") | {"ledgers": []}
    told["ledgers"].append({"trouble": trouble, "delivery": delivery, **counts})
    path.write_text(json.dumps(told, indent=1) + "\n")


def test_pools_start_under_a_backlog(broker: Broker, generated_model: Any, tmp_path: Path) -> None:
    """Ten times, exactly once, with two workers: each is ready soon, whatever the second one takes from the first."""
    (tmp_path / "fraud.onnx").write_bytes(generated_model.path.read_bytes())
    scene = Scene(broker, tmp_path / "fraud.onnx", b"", "exactly_once", 0)
    records = to_records(synthetic.frame(RATE * 100, seed=52).drop(columns=["isFraud"]))
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
    load = {"bootstrap_servers": broker.bootstrap_servers, "topic": RAW, "rate": float(RATE)}
    sender = threading.Thread(target=replay, args=(pairs,), kwargs=load)
    sender.start()
    for _ in range(STARTS):
        pool = scene.serve()
        try:
            pool.await_line("ready: every partition")
            stop_well(pool)
        finally:
            pool.process.kill()
            pool.process.wait()
    scene.pool = scene.serve()
    try:
        sender.join()
        ledger = balance(broker.bootstrap_servers, TOPICS, len(records), (), generated_model.expected_scores)
        assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.repeated) == (0, 0, 0, 0)
        stop_well(scene.pool)
    finally:
        scene.pool.process.kill()
        scene.pool.process.wait()
