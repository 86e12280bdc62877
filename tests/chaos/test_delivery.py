"""Both deliveries while things break: nothing lost, order kept, scores right; and repeated only at least once."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest

from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.ledger import balance
from tests.support.periodic import every
from tests.support.serving import Topics

RATE, SECONDS = 1_500, 12
MALFORMED = (b"{", b"", b"[]", b"\xff\x00", b'{"TransactionID"', b"nul", b"[" * 100, b"{}")


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_workers_are_killed_while_records_flow(
    delivery: str, generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any
) -> None:
    count = RATE * SECONDS
    records = to_records(synthetic.frame(count, seed=21).drop(columns=["isFraud"]))
    for number in range(0, count, 100):
        records[number] = MALFORMED[number // 100 % len(MALFORMED)]
    serving = serve(str(generated_model.path), workers=2, options=["--delivery", delivery])
    chosen = random.Random(3)

    def kill_one() -> None:
        if workers := serving.worker_ids():
            os.kill(chosen.choice(workers), signal.SIGKILL)

    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
    started = time.monotonic()
    with every(2.0, kill_one):
        replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=RATE)
    assert time.monotonic() - started > SECONDS * 0.9
    ledger = balance(bootstrap_servers, topics, count, MALFORMED, generated_model.expected_scores)
    assert (ledger.sent, ledger.lost, ledger.wrong, ledger.disorder) == (count, 0, 0, 0)
    assert ledger.rejected == count // 100
    if delivery == "exactly_once":
        assert ledger.repeated == 0
    assert serving.metric("worker_restarts_total") >= 3
    assert serving.stop() == 0
