"""Both deliveries while things break: nothing lost, order kept, scores right; and repeated only at least once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import pytest

from bench.load import replay
from tests.chaos.ledger import balance
from tests.conftest import Topics
from training import synthetic
from training.fit import build_matrix
from training.tables import to_records

RATE, SECONDS = 1_500, 12
MALFORMED = (b"{", b"", b"[]", b"\xff\x00", b'{"TransactionID"', b"nul", b"[" * 100, b"{}")


def scores_of(model: Any) -> Callable[[list[bytes]], dict[int, float]]:
    def scores(records: list[bytes]) -> dict[int, float]:
        matrix, _ = build_matrix(model.trained.contract, records)
        identifiers = [orjson.loads(record)["TransactionID"] for record in records]
        return dict(zip(identifiers, np.asarray(model.booster.predict(matrix, num_threads=1)).tolist(), strict=True))

    return scores


@contextmanager
def again_and_again(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
    with again_and_again(2.0, kill_one):
        replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=RATE)
    assert time.monotonic() - started > SECONDS * 0.9
    ledger = balance(bootstrap_servers, topics, count, MALFORMED, scores_of(generated_model))
    assert (ledger.sent, ledger.lost, ledger.wrong, ledger.disorder) == (count, 0, 0, 0)
    assert ledger.rejected == count // 100
    if delivery == "exactly_once":
        assert ledger.repeated == 0
    assert serving.metric("worker_restarts_total") >= 3
    assert serving.stop() == 0
