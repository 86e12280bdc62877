"""A second model beside the one that serves: both scores, exactly, in a topic of its own; the pool does not notice."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson

from saker import to_onnx
from saker.engine.kafka import admin, groups
from saker.engine.kafka.replay import replay
from saker.training import synthetic
from saker.training.fit import Settings, train
from saker.training.tables import to_records
from tests.support import velocity
from tests.support.scores import expected_scores
from tests.support.serving import Topics


def await_group(bootstrap_servers: str, topics: Topics) -> None:
    group = groups.GroupAdmin(bootstrap_servers)
    while not (found := group.describe(f"{topics.group}-shadow", topics.raw)) or not found.stable or found.unread(4):
        pass


def test_what_the_second_model_says_is_written_down(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any, tmp_path: Path
) -> None:
    other = train(synthetic.frame(6_000, seed=77), Settings(rounds=20))
    (tmp_path / "other.onnx").write_bytes(to_onnx(other.booster, other.contract).SerializeToString())
    output = f"{topics.scored}-shadow"
    admin.create_topics(bootstrap_servers, [output], 3)  # fewer than the input has
    options = ["--shadow", str(tmp_path / "other.onnx"), "--shadow-output", output, "--shadow-cpu", "1"]
    serving = serve(str(generated_model.path), workers=1, options=options)
    serving.await_line("shadow: other/")
    await_group(bootstrap_servers, topics)
    records = to_records(synthetic.frame(2_000, seed=41).drop(columns=["isFraud"]))
    pairs = [(str(number).encode(), record) for number, record in enumerate(records)]
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=2_000)
    results = {record.key: orjson.loads(record.value) for record in read(topics.scored, len(records))}
    beside = {record.key: orjson.loads(record.value) for record in read(output, len(records))}
    scores = expected_scores(other.booster, other.contract, records).values()
    disagreed = 0
    for (key, _), score in zip(pairs, scores, strict=True):
        line, result = beside[key], results[key]
        assert {name: line[name] for name in ("TransactionID", "fraud_score", "is_fraud", "model")} == {
            name: value for name, value in result.items() if name != "scored_at_ms"
        }
        assert line["shadow_score"] == score
        assert line["shadow_is_fraud"] == (score >= other.contract.threshold)
        assert line["shadow_model"].startswith("other/")
        disagreed += line["shadow_is_fraud"] != line["is_fraud"]
    while serving.metric("shadow_transactions_total") < len(records):
        assert serving.process.poll() is None
    told = serving.get("/metrics")
    assert f'shadow_transactions_total{{result="disagreed"}} {float(disagreed)}' in told
    assert f'shadow_transactions_total{{result="agreed"}} {float(len(records) - disagreed)}' in told
    assert serving.stop() == 0


def test_velocity_features(bootstrap_servers: str, topics: Topics, serve: Any, read: Any, tmp_path: Path) -> None:
    """Each model has its own, of all records before those that the shadow scores."""
    (tmp_path / "second").mkdir()
    served = velocity.trained(tmp_path)
    second = velocity.trained(tmp_path / "second", velocity.OTHERS, 30)
    output = f"{topics.scored}-shadow"
    admin.create_topics(bootstrap_servers, [output], 4)
    options = ["--shadow", str(second.path), "--shadow-output", output, "--shadow-cpu", "1", "--state", str(tmp_path / "state")]
    replay(list(velocity.payments(1500)), bootstrap_servers=bootstrap_servers, topic=topics.raw)
    serving = serve(str(served.path), workers=1, options=options)
    serving.await_line("shadow: velocity/")
    await_group(bootstrap_servers, topics)
    replay(list(velocity.payments(1000, 2, first=1500)), bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=2_000)
    log = read(topics.raw, 2500)
    expected, others = served.expected_scores(log), second.expected_scores(log)
    lines = [orjson.loads(record.value) for record in read(output, 1000)]
    assert {line["id"] for line in lines} >= set(range(1500, 2500))
    assert all(line["fraud_score"] == expected[line["id"]] for line in lines)
    assert all(line["shadow_score"] == others[line["id"]] for line in lines)
    assert serving.stop() == 0


def test_it_leaves_out_what_is_too_much_and_may_die(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    output = f"{topics.scored}-shadow"
    admin.create_topics(bootstrap_servers, [output], 4)
    options = ["--shadow", str(generated_model.path), "--shadow-output", output, "--shadow-cpu", "0.01"]
    serving = serve(str(generated_model.path), workers=1, options=options)
    serving.await_line("shadow: fraud/")
    await_group(bootstrap_servers, topics)
    worker_before, shadow = serving.worker_ids()
    records = to_records(synthetic.frame(20_000, seed=43).drop(columns=["isFraud"]))
    pairs = [(str(number % 50).encode(), record) for number, record in enumerate(records)]
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw)
    assert len(read(topics.scored, len(records))) == len(records)
    while 'shadow_transactions_total{result="skipped"} 0.0' in (text := serving.get("/metrics")) or "skipped" not in text:
        assert serving.process.poll() is None
    os.kill(shadow, signal.SIGKILL)
    serving.await_line("shadow: its process ended with -9")
    assert worker_before in serving.worker_ids()
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0
