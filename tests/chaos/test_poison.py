"""A record that kills whoever scores it is found and rejected; its neighbours are scored. A worker that hangs is replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.ledger import balance
from tests.support.serving import Topics

POISON = b'{"TransactionID": 1, "poison": true}'
#: No record is known that crashes a worker: this gives every process one, by the hook that Python has for it.
CRASHING = f"""
import ctypes
import saker.engine.records.decode

decode = saker.engine.records.decode.Decoder.decode

def crashing(self, values):
    if any(values[place] == {POISON!r} for place in range(len(values))):
        ctypes.string_at(0)
    return decode(self, values)

saker.engine.records.decode.Decoder.decode = crashing
"""


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_record_that_crashes_workers_is_isolated(
    kernels: str,
    generated_model: Any,
    bootstrap_servers: str,
    topics: Topics,
    serve: Any,
    read: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    records = to_records(synthetic.frame(2_000, seed=29).drop(columns=["isFraud"]))
    records[700] = records[1500] = POISON
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw)
    serving = serve(str(generated_model.path), workers=1, kernels=kernels, ready=False)
    tolerance = 1e-14 if kernels == "off" else 0.0  # onnxruntime adds the trees of a single row in another order
    ledger = balance(bootstrap_servers, topics, len(records), {POISON}, generated_model.expected_scores, tolerance)
    assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.rejected) == (0, 0, 0, 2)
    told = read(topics.rejected, 2)  # and again, what was not committed when the next worker died
    assert {(record.value, record.header("saker.error.code")) for record in told} == {(POISON, "worker_crash")}
    for _ in range(2):
        assert f"of {topics.raw} is rejected" in serving.await_line("it crashed workers")
    while serving.metric("failed_transactions_total") < 2:
        assert serving.process.poll() is None
    assert serving.stop() == 0


def test_a_worker_that_hangs_is_replaced(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    records = to_records(synthetic.frame(1_000, seed=31).drop(columns=["isFraud"]))
    serving = serve(str(generated_model.path), workers=2, options=["--hung-seconds", "2"])
    hanging = serving.worker_ids()[0]
    os.kill(hanging, signal.SIGSTOP)
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw)
    assert "reported nothing" in serving.await_line("killing it")
    assert len(read(topics.scored, len(records))) >= len(records)
    assert hanging not in serving.worker_ids()
    assert serving.metric("worker_restarts_total") == 1
    assert serving.stop() == 0
