"""Histories of velocity features while things break: every score is the one that the log says."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saker.deploy.local.kafka import Broker
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics
from saker.engine.kafka.replay import replay
from tests.support import velocity
from tests.support.broker import listener
from tests.support.inbox import until
from tests.support.periodic import every
from tests.support.serving import Serving, Topics
from tests.support.velocity import VelocityModel, check_scores, payments

RATE, SECONDS = 1_500, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VelocityModel:
    return velocity.trained(tmp_path_factory.mktemp("velocity"))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_workers_are_killed_while_snapshots_are_taken(
    delivery: str, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    options = ["--delivery", delivery, "--state", str(tmp_path), "--snapshot-seconds", "1"]
    serving = serve(str(model.path), workers=2, options=options)
    chosen = random.Random(5)

    def kill_one() -> None:
        if workers := serving.worker_ids():
            os.kill(chosen.choice(workers), signal.SIGKILL)

    with every(1.7, kill_one):
        replay(list(payments(RATE * SECONDS, cards=300)), bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=RATE)
    check_scores(bootstrap_servers, topics, model, RATE * SECONDS, once=delivery == "exactly_once")
    assert serving.metric("worker_restarts_total") >= 3
    assert serving.metric("history_replayed_records_total") > 0
    assert serving.stop() == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_partitions_move_between_pools(
    delivery: str, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """Pools come and go; they share the folder of snapshots, or each has its own."""
    common = ["--delivery", delivery, "--snapshot-seconds", "1", "--group", topics.group]
    pools: list[Serving] = []

    def options(number: int) -> list[str]:
        folder = tmp_path / ("shared" if number % 2 else f"own-{number}")
        return [*common, "--state", str(folder), "--instance", f"pool-{number}"]

    pools.append(serve(str(model.path), workers=1, options=options(0)))
    number = 0

    def change() -> None:
        nonlocal number
        number += 1
        pools.append(serve(str(model.path), workers=1, options=options(number), ready=False))
        if len(pools) > 2:
            pools.pop(0).stop(signal.SIGKILL if number % 3 == 0 else signal.SIGTERM)

    with every(4.0, change):
        replay(list(payments(RATE * SECONDS, cards=300)), bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=RATE)
    check_scores(bootstrap_servers, topics, model, RATE * SECONDS, once=delivery == "exactly_once")
    for pool in pools:
        assert pool.stop() == 0


def test_an_idle_partition_does_not_hold_up_the_snapshots(
    model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """Nothing of it is committed after the restart; and while nothing comes, its snapshot is as good as new."""
    options = ["--state", str(tmp_path), "--snapshot-seconds", "1"]
    pairs = list(payments(400))
    replay(pairs[:200], bootstrap_servers=bootstrap_servers, topic=topics.raw)
    serving = serve(str(model.path), workers=1, options=options)
    check_scores(bootstrap_servers, topics, model, 200)
    assert serving.stop(signal.SIGKILL) == -signal.SIGKILL
    for snapshot in tmp_path.rglob("*.snapshot"):
        snapshot.unlink()
    serving = serve(str(model.path), workers=1, options=options)
    until("a snapshot of each partition", lambda: len(list(tmp_path.rglob("*.snapshot"))) == 4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.snapshot")}
    key = pairs[200][0]
    busy = [pair for pair in pairs[200:] if pair[0] == key]
    replay(busy, bootstrap_servers=bootstrap_servers, topic=topics.raw)
    until("one is newer", lambda: any(path.stat().st_mtime_ns > at for path, at in before.items()))
    assert sum(path.stat().st_mtime_ns > at for path, at in before.items()) == 1
    check_scores(bootstrap_servers, topics, model, 200 + len(busy))
    assert serving.stop() == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_the_broker_is_killed_while_workers_recover(
    delivery: str, model: VelocityModel, own_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    """Workers that cannot read offsets, topics or times are restarted until they can."""
    broker = own_broker()
    create_topics(broker.bootstrap_servers, 4)
    topics = Topics(RAW, SCORED, REJECTED, "fraud-scorers")
    command = [sys.executable, "-m", "saker", "serve", "--model", str(model.path), "--metrics-port", "0", "--workers", "2"]
    command += ["--bootstrap-servers", broker.bootstrap_servers, "--delivery", delivery, "--transaction-ms", "1000"]
    command += ["--state", str(tmp_path), "--snapshot-seconds", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        serving = Serving(process)
        serving.await_line("ready: every partition")
        pairs = list(payments(9000, cards=300))
        load = {"bootstrap_servers": broker.bootstrap_servers, "topic": RAW, "rate": 1000.0}
        sender = threading.Thread(target=replay, args=(pairs,), kwargs=load)
        sender.start()
        while serving.metric("scored_transactions_total") < 2_000:
            assert sender.is_alive()
        os.kill(listener(broker.bootstrap_servers), signal.SIGKILL)
        for worker in serving.worker_ids():
            os.kill(worker, signal.SIGKILL)
        serving.await_line("no Kafka broker answers")
        broker.start_again()
        broker.wait()
        sender.join()
        check_scores(broker.bootstrap_servers, topics, model, len(pairs), once=delivery == "exactly_once")
        assert serving.stop() == 0
    finally:
        process.kill()
        process.wait()
