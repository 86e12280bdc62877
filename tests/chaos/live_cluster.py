"""Three brokers, and what one of them cannot show: `make chaos` runs it, after live_chaos.py. Not collected by itself."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from saker.deploy.local.stack import RAW, REJECTED, SCORED
from saker.engine.kafka import admin
from saker.engine.kafka.replay import replay
from saker.engine.metrics.reading import read
from saker.training import synthetic
from saker.training.malformed import malformed
from saker.training.tables import to_records
from tests.support import produce
from tests.support.cluster import Cluster, cluster
from tests.support.ledger import balance
from tests.support.serving import PARTITIONS, Serving, Topics, worker_ids

DELIVERIES = ["at_least_once", "exactly_once"]
TOPICS = Topics(RAW, SCORED, REJECTED, "fraud-scorers")
AWAY_SECONDS, SERIES_SECONDS, LOST_SECONDS = 60.0, 30.0, 25.0
ODD, ALL = 4_000, 200_000
COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.fixture
def brokers() -> Iterator[Cluster]:
    with cluster() as made:
        for_ever = {"retention.ms": "-1"}
        admin.create_topics(made.bootstrap_servers, [RAW, SCORED], PARTITIONS, for_ever)
        admin.create_topics(made.bootstrap_servers, [REJECTED], PARTITIONS, for_ever | {"max.message.bytes": str(2 << 20)})
        yield made


@pytest.fixture
def pool(brokers: Cluster, generated_model: Any) -> Iterator[Callable[..., Serving]]:
    with ExitStack() as stack:

        def start(*options: str) -> Serving:
            command = [sys.executable, "-m", "saker", "serve", "--model", str(generated_model.path), *options]
            command += ["--bootstrap-servers", brokers.bootstrap_servers, "--metrics-port", "0"]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            serving = Serving(process)
            serving.await_line("ready: every partition")
            return serving

        yield start


def records(count: int, seed: int = 5) -> list[bytes]:
    return to_records(synthetic.frame(count, seed=seed).drop(columns=["isFraud"]))


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_one_of_three_is_away(delivery: str, brokers: Cluster, pool: Any, generated_model: Any) -> None:
    """Results flow, `broker_up` stays 1, and the lag of every partition is known again once it has another leader."""
    serving = pool("--workers", "2", "--delivery", delivery)
    sent = records(int(200 * (AWAY_SECONDS + 20)))
    load = {"bootstrap_servers": brokers.bootstrap_servers, "topic": RAW, "rate": 200.0}
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(sent)]
    sender = threading.Thread(target=replay, args=(pairs,), kwargs=load)
    sender.start()
    while serving.metric("scored_transactions_total") < 200:
        assert sender.is_alive()
    away = brokers.leader(RAW, 0)
    brokers.kill(away)
    until, known = time.monotonic() + AWAY_SECONDS, 0.0
    while time.monotonic() < until:
        found = read(f"{serving.url}/metrics")
        assert found.sum("broker_up") == 1
        everywhere = len(found.of("consumer_lag_records")) == PARTITIONS
        known = (known or time.monotonic()) if everywhere else 0.0
        time.sleep(0.2)  # between two looks
    assert known
    assert known - (until - AWAY_SECONDS) < SERIES_SECONDS
    away.start_again()
    away.wait()
    sender.join()
    ledger = balance(brokers.bootstrap_servers, TOPICS, len(sent), (), generated_model.expected_scores)
    assert (ledger.lost, ledger.wrong, ledger.disorder) == (0, 0, 0)
    assert delivery == "at_least_once" or ledger.repeated == 0
    assert serving.stop() == 0


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_machine_is_lost(delivery: str, brokers: Cluster, pool: Any, generated_model: Any) -> None:
    """A pool is killed with all its workers, in the middle of transactions; another one has its partitions soon."""
    lost = pool("--workers", "2", "--delivery", delivery, "--instance", "lost", "--transaction-ms", "1000")
    other = pool("--workers", "2", "--delivery", delivery, "--instance", "other")
    sent = records(200 * 60)
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(sent)]
    load = {"bootstrap_servers": brokers.bootstrap_servers, "topic": RAW, "rate": 200.0}
    sender = threading.Thread(target=replay, args=(pairs,), kwargs=load)
    sender.start()
    while lost.metric("scored_transactions_total") < 200 or other.metric("scored_transactions_total") < 200:
        assert sender.is_alive()
    for process in (lost.process.pid, *worker_ids(lost.process.pid)):
        os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    while other.metric("consumer_lag_records") < 800:  # of partitions that nobody reads
        assert time.monotonic() - killed < 60
    while other.metric("consumer_lag_records") > 400:
        assert time.monotonic() - killed < 60
    print(f"{delivery}: caught up {time.monotonic() - killed:.1f} s after the machine was lost")  # noqa: T201
    assert time.monotonic() - killed < LOST_SECONDS
    assert other.metric("worker_restarts_total") == 0
    sender.join()
    ledger = balance(brokers.bootstrap_servers, TOPICS, len(sent), (), generated_model.expected_scores)
    assert (ledger.lost, ledger.wrong, ledger.disorder) == (0, 0, 0)
    assert delivery == "at_least_once" or ledger.repeated == 0
    assert other.stop() == 0


def with_identifier(record: bytes, number: int) -> bytes:
    start = record.index(b'"TransactionID":') + len(b'"TransactionID":')
    return record[:start] + str(number).encode() + record[record.index(b",", start) :]


def odd(good: bytes, chosen: random.Random) -> bytes | None:
    """A value that is to be rejected."""
    kinds = [kind.value for kind in malformed(good)]
    return chosen.choice(
        [
            chosen.choice(kinds),
            chosen.randbytes(chosen.choice([1, 100, 10_000])),
            b"{" * chosen.choice([1, 1_000, 500_000]),
            b'"' + b'\\"' * chosen.choice([10, 200_000]),
            good[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            good[: chosen.randrange(1, len(good) - 1)],
        ]
    )


def around(chosen: random.Random) -> dict[str, Any]:
    """Key, headers and timestamp, which change nothing of the score."""
    now = int(time.time() * 1000)
    headers: list[list[tuple[str, bytes | None]]] = [
        [],
        [("trace", b"\xff\xfe"), ("trace", None)],
        [(f"h{number}", b"x" * number) for number in range(60)],
        [("saker.error.topic", b"elsewhere"), ("saker.error.offset", b"-1"), ("original.saker.error.code", b"")],
        [("large", b"h" * 100_000)],
    ]
    return {
        "key": chosen.choice([None, b"", b"card", chosen.randbytes(40), b"k" * 50_000]),
        "headers": chosen.choice(headers),
        "timestamp": chosen.choice([now, 1, now - 400 * 86_400_000, now + 60_000]),
    }


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_poison_among_many(delivery: str, brokers: Cluster, pool: Any, generated_model: Any) -> None:
    """200,000 records, 4,000 of them odd in value, key, headers or time, by producers of every compression."""
    chosen = random.Random(11)
    base = records(2_000)
    serving = pool("--workers", "2", "--delivery", delivery)
    bad: set[bytes] = set()
    for number in range(0, ALL, ALL // len(COMPRESSIONS)):
        sent: list[dict[str, Any]] = []
        for place in range(number, number + ALL // len(COMPRESSIONS)):
            message: dict[str, Any] = {
                "value": with_identifier(base[place % len(base)], place),
                "partition": chosen.randrange(PARTITIONS),
            }
            if place % (ALL // ODD) == 0:
                message |= around(chosen)
                if chosen.random() < 0.5:
                    message["value"] = odd(base[place % len(base)], chosen)
                    bad.add(message["value"] or b"")
            sent.append(message)
        compression = COMPRESSIONS[number // (ALL // len(COMPRESSIONS))]
        produce.send(brokers.bootstrap_servers, RAW, sent, **{"compression.type": compression})
    ledger = balance(brokers.bootstrap_servers, TOPICS, ALL, bad, generated_model.expected_scores)
    assert (ledger.sent, ledger.lost, ledger.wrong, ledger.disorder, ledger.repeated) == (ALL, 0, 0, 0, 0)
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0
