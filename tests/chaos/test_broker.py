"""The broker comes late, goes away and comes back: saker waits, says so, and goes on without a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import psutil
import pytest

from saker.deploy.local.kafka import Broker
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics
from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.broker import listener
from tests.support.ledger import balance
from tests.support.serving import Serving, Topics

TOPICS = Topics(RAW, SCORED, REJECTED, "fraud-scorers")


@pytest.fixture
def broker(own_broker: Callable[..., Broker]) -> Broker:
    """One that was there, has the topics, and has ended in good order: one that was killed needs 9 s more to start again, the
    time after which its controller gives up the broker before it."""
    broker = own_broker()
    create_topics(broker.bootstrap_servers, 4)
    ended = psutil.Process(listener(broker.bootstrap_servers))
    ended.terminate()
    ended.wait(30)
    return broker


def is_ready(serving: Serving) -> bool:
    try:
        return serving.get("/readyz") == "ready\n"
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_it_comes_late_and_is_killed(delivery: str, broker: Broker, generated_model: Any) -> None:
    command = [sys.executable, "-m", "saker", "serve", "--model", str(generated_model.path), "--metrics-port", "0"]
    command += ["--bootstrap-servers", broker.bootstrap_servers, "--delivery", delivery]
    # So that the broker is killed while a transaction is open: one that is killed between the end of a transaction and the
    # markers of it may lose that of the offsets (Kafka 4.4, seen twice), and then nobody can read them any more.
    command += ["--transaction-ms", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        serving = Serving(process)
        serving.await_line("retrying")
        assert not is_ready(serving)
        assert serving.metric("broker_up") == 0
        broker.start_again()
        serving.await_line("ready: every partition")

        records = to_records(synthetic.frame(9_000, seed=23).drop(columns=["isFraud"]))
        pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
        load = {"bootstrap_servers": broker.bootstrap_servers, "topic": RAW, "rate": 1000.0}
        sender = threading.Thread(target=replay, args=(pairs,), kwargs=load)
        sender.start()
        while serving.metric("scored_transactions_total") < 2_000:
            assert sender.is_alive()
        os.kill(listener(broker.bootstrap_servers), signal.SIGKILL)
        serving.await_line("no Kafka broker answers")
        assert not is_ready(serving)
        broker.start_again()
        broker.wait()
        sender.join()
        ledger = balance(broker.bootstrap_servers, TOPICS, len(records), (), generated_model.expected_scores)
        assert (ledger.lost, ledger.wrong, ledger.disorder) == (0, 0, 0)
        if delivery == "exactly_once":
            assert ledger.repeated == 0
        while not is_ready(serving):
            assert process.poll() is None
        assert serving.stop() == 0
        assert "Traceback" not in serving.rest_of_log()
    finally:
        process.kill()
        process.wait()
