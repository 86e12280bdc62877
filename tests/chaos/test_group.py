"""Workers and the pool's parent fail at bad moments: every partition is read again within seconds, and nobody waits for a
process that stands still."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from saker.deploy.local.kafka import Broker
from saker.deploy.local.stack import create_topics
from saker.engine.kafka import clients
from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.broker import listener
from tests.support.ledger import balance
from tests.support.serving import Serving, Topics

#: Ends, by the hook that Python has for it, the first worker that gives partitions up for another one.
DIES_IN_REVOKE = """
import os, signal
from pathlib import Path
from saker.engine.serving.worker import Worker

on_revoke = Worker._on_revoke

def dying(self, consumer, partitions):
    died = Path({flag!r})
    if partitions and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    on_revoke(self, consumer, partitions)

Worker._on_revoke = dying
"""

#: Commits one transaction as a member of the group before the last rebalance: while partitions are given up, or later.
COMMITS_LATE = """
from pathlib import Path
from saker.engine.delivery import exactly_once
from saker.engine.serving.worker import Worker

commit, on_revoke, members = exactly_once._commit_transaction, Worker._on_revoke, []
late, done = Path({late!r}), Path({done!r})

def committing(producer, offsets, group):
    members.append(group)
    if late.exists() and offsets and not done.exists():
        done.touch()
        group = members[0]
    commit(producer, offsets, group)

def revoking(self, consumer, partitions):
    if {while_revoking!r} and partitions:
        late.touch()
    on_revoke(self, consumer, partitions)

exactly_once._commit_transaction, Worker._on_revoke = committing, revoking
"""


def ready(serving: Serving) -> bool:
    try:
        return serving.get("/readyz") == "ready\n"
    except urllib.error.HTTPError:
        return False


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_dies_while_it_gives_partitions_up(
    delivery: str,
    generated_model: Any,
    bootstrap_servers: str,
    topics: Topics,
    serve: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes back under its name without a rebalance, so the one that would give its partitions to the other never comes."""
    (tmp_path / "sitecustomize.py").write_text(DIES_IN_REVOKE.format(flag=str(tmp_path / "died")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    serving = serve(str(generated_model.path), workers=1, options=["--instance", "first", "--delivery", delivery])
    assert not (tmp_path / "died").exists()
    other = serve(str(generated_model.path), workers=1, ready=False, options=["--instance", "second", "--delivery", delivery])
    serving.await_line("ended with -9")
    died = time.monotonic()
    other.await_line("ready: every partition")
    assert time.monotonic() - died < 20
    records = to_records(synthetic.frame(400, seed=3).drop(columns=["isFraud"]))
    replay(((None, record) for record in records), bootstrap_servers=bootstrap_servers, topic=topics.raw)
    ledger = balance(bootstrap_servers, topics, len(records), (), generated_model.expected_scores)
    assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.repeated) == (0, 0, 0, 0)
    assert [each.stop() for each in (serving, other)] == [0, 0]


@pytest.mark.parametrize("while_revoking", [True, False])
def test_a_transaction_is_refused_for_a_rebalance(
    while_revoking: bool,
    generated_model: Any,
    bootstrap_servers: str,
    topics: Topics,
    serve: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker reads again what is not committed, and need not start again for it."""
    late, done = tmp_path / "late", tmp_path / "done"
    hook = COMMITS_LATE.format(late=str(late), done=str(done), while_revoking=while_revoking)
    (tmp_path / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pools = [serve(str(generated_model.path), workers=1, options=["--instance", "0", "--delivery", "exactly_once"])]
    records = to_records(synthetic.frame(30_000, seed=3).drop(columns=["isFraud"]))
    sent: list[bytes] = []

    def until_it_was_late() -> Iterator[tuple[None, bytes]]:
        for record in records:
            if done.exists():
                return
            sent.append(record)
            yield None, record

    settings = {"bootstrap_servers": bootstrap_servers, "topic": topics.raw, "rate": 400.0}
    sending = threading.Thread(target=replay, args=(until_it_was_late(),), kwargs=settings)
    sending.start()
    monkeypatch.delenv("PYTHONPATH")
    pools.append(serve(str(generated_model.path), workers=1, options=["--instance", "1", "--delivery", "exactly_once"]))
    if not while_revoking:
        late.touch()
    sending.join()
    assert done.exists()
    ledger = balance(bootstrap_servers, topics, len(sent), (), generated_model.expected_scores)
    assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.repeated) == (0, 0, 0, 0)
    assert [each.metric("worker_restarts_total") for each in pools] == [0, 0]
    assert [each.stop() for each in pools] == [0, 0]
    assert "uncommitted records will be read again" in pools[0].rest_of_log()


def test_a_worker_that_is_stopped_makes_its_pool_unready(generated_model: Any, serve: Any) -> None:
    serving = serve(str(generated_model.path), workers=2)
    assert ready(serving)
    stopped = serving.worker_ids()[0]
    os.kill(stopped, signal.SIGSTOP)
    while ready(serving):
        assert serving.process.poll() is None
    os.kill(stopped, signal.SIGCONT)
    while not ready(serving):
        assert serving.process.poll() is None
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


def test_the_cache_of_models_is_emptied(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """A worker that is started again finds its model all the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    serving = serve(str(generated_model.path), workers=1)
    shutil.rmtree(tmp_path / "cache" / "saker")
    os.kill(serving.worker_ids()[0], signal.SIGKILL)
    serving.await_line("worker 0 ready")
    records = to_records(synthetic.frame(40, seed=3).drop(columns=["isFraud"]))
    replay(((None, record) for record in records), bootstrap_servers=bootstrap_servers, topic=topics.raw)
    assert len(read(topics.scored, len(records))) == len(records)
    assert serving.stop() == 0


def test_workers_do_not_wait_for_a_parent_that_is_stopped(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any
) -> None:
    serving = serve(str(generated_model.path), workers=1)
    (worker,) = serving.worker_ids()
    pipe_is_full = 30 * 4  # reports; the socket took 17.9 s of them
    records = to_records(synthetic.frame(pipe_is_full * 20, seed=3).drop(columns=["isFraud"]))
    serving.process.send_signal(signal.SIGSTOP)
    pairs = ((None, record) for record in records)
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=80.0)
    ledger = balance(bootstrap_servers, topics, len(records), (), generated_model.expected_scores)
    assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.repeated) == (0, 0, 0, 0)
    serving.process.send_signal(signal.SIGCONT)
    while serving.metric("scored_transactions_total") < len(records):
        assert serving.process.poll() is None
    assert serving.metric("scored_transactions_total") == len(records)
    assert serving.worker_ids() == [worker]
    assert serving.stop() == 0


def test_a_member_with_another_assignor_is_told(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any
) -> None:
    settings = {"group.id": topics.group, "partition.assignment.strategy": "range"}
    member = clients.consumer(bootstrap_servers, **settings)
    member.subscribe([topics.raw])
    while not member.assignment():
        member.poll(0.1)
    serving = serve(str(generated_model.path), workers=1, ready=False)
    serving.await_line(f"group {topics.group} has members with another assignor")
    member.close()
    serving.await_line("ready: every partition")
    assert serving.stop() == 0


def test_the_broker_goes_away_before_the_pool_is_settled(
    generated_model: Any, own_broker: Callable[..., Broker], serve: Any
) -> None:
    """librdkafka's requests to a coordinator end a process when it goes away: the pool asks by others."""
    broker = own_broker()
    create_topics(broker.bootstrap_servers, 4)
    java = psutil.Process(listener(broker.bootstrap_servers))
    serving = serve(str(generated_model.path), workers=2, ready=False, options=on(broker))
    serving.await_line("ready with")  # the first worker; the second joins now
    java.kill()
    java.wait(30)
    serving.await_line("no Kafka broker answers")
    assert not ready(serving)
    broker.start_again()
    broker.wait()
    while not ready(serving):  # before or after it was settled
        assert serving.process.poll() is None
    assert serving.stop() == 0


def on(broker: Broker) -> list[str]:
    """Options that override those of the fixture `serve`."""
    return [
        *("--bootstrap-servers", broker.bootstrap_servers),
        *("--input", "raw-transactions", "--output", "scored-transactions", "--rejected", "rejected-transactions"),
    ]
