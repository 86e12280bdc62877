from __future__ import annotations

import hashlib
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import orjson
import pytest

from saker.engine.config import ServeSettings
from saker.engine.errors import ServingError
from saker.engine.kafka import admin, groups
from saker.engine.kafka.replay import keyed, replay
from saker.engine.model.registry import locate
from saker.engine.serving.pool import Pool
from saker.export.external_models import contract_for
from saker.export.proven_export import export_proven
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support.produce import send


def test_one_that_is_stopped_while_it_starts_ends_well(generated_model: Any, serve: Any) -> None:
    serving = serve(str(generated_model.path), ready=False)
    serving.await_line("is not proven")
    assert serving.stop() == 0


def test_records_with_none_of_the_model_s_fields_are_told(
    bootstrap_servers: str, topics: Any, serve: Any, read: Any, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(int), feature_name=["amount", "age"])
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 5)
    (tmp_path / "m.onnx").write_bytes(export_proven(booster, contract_for(booster, id_field="id")).data)
    serving = serve(str(tmp_path / "m.onnx"), workers=1)
    values = [b'{"id":1,"amount":1}', b'{"id":2,"Amount":1}', b'{"id":3,"amount":null,"age":""}', b'{"id":4,"\\u0061ge":7}']
    send(bootstrap_servers, topics.raw, [{"value": value} for value in values])
    serving.await_line("have none of the 2 fields that")
    assert len(read(topics.scored, 4)) == 4
    while serving.metric("blank_transactions_total") < 2:
        assert serving.process.poll() is None
    assert serving.metric("blank_transactions_total") == 2
    assert serving.stop() == 0


def test_bad_records_are_rejected_with_reasons_and_neighbours_scored(
    cards_model: Any,
    bootstrap_servers: str,
    topics: Any,
    serve: Any,
    read: Any,
) -> None:
    good = cards_model.trained.records[:2]
    large = b"[" + b"1," * 524_000 + b"1]"  # the broker takes it as it is; the rejection is larger by its headers
    values = [good[0], b"\xff\x00 not json", None, large, good[1]]
    headers = [("trace", b"abc"), ("trace", b"twice"), ("empty", None)]
    send(
        bootstrap_servers,
        topics.raw,
        [
            {"value": value, "key": b"card-7", "partition": 2, "headers": headers, "timestamp": 1_700_000_000_000 + n}
            for n, value in enumerate(values)
        ],
    )
    serving = serve(str(cards_model.path), workers=1)
    scored, rejected = read(topics.scored, 2), read(topics.rejected, 3)

    expected = cards_model.expected_scores(good)
    for message, (identifier, score) in zip(scored, expected.items(), strict=True):
        answer = orjson.loads(message.value)
        assert list(answer) == ["ID", "fraud_score", "is_fraud", "model", "scored_at_ms"]
        assert answer["ID"] == identifier
        assert answer["fraud_score"] == pytest.approx(score, rel=1e-15)
        assert answer["is_fraud"] == (score >= cards_model.trained.contract.threshold)
        assert answer["model"].startswith("fraud/")
        assert abs(answer["scored_at_ms"] / 1000 - time.time()) < 600
    for message in (*scored, *rejected):
        assert (message.key, message.partition) == (b"card-7", 2)
        assert message.headers[:3] == headers

    assert [message.timestamp_ms - 1_700_000_000_000 for message in (*scored, *rejected)] == [0, 4, 1, 2, 3]
    assert [message.value for message in rejected] == values[1:4]
    told = [dict(message.headers[3:]) for message in rejected]
    assert [t["saker.error.code"] for t in told] == [b"invalid_json", b"empty_record", b"not_an_object"]
    assert [t["saker.error.offset"] for t in told] == [b"1", b"2", b"3"]
    assert {t["saker.error.topic"] for t in told} == {topics.raw.encode()}
    assert {t["saker.error.partition"] for t in told} == {b"2"}
    assert all(t["saker.error.message"] for t in told)
    assert serving.stop(signal.SIGINT) == 0


def test_metrics_health_and_a_clean_stop(
    cards_model: Any,
    bootstrap_servers: str,
    topics: Any,
    serve: Any,
    read: Any,
) -> None:
    records = cards_model.trained.records
    serving = serve(str(cards_model.path), workers=2)
    assert serving.get("/healthz") == "ok\n"
    assert serving.get("/readyz") == "ready\n"
    sent = [(None, record) for record in (*records, b"{}")]
    replay(sent, bootstrap_servers=bootstrap_servers, topic=topics.raw)
    read(topics.scored, len(records))
    read(topics.rejected, 1)
    deadline = time.monotonic() + 10
    while (
        serving.metric("scored_transactions_total") < len(records) or serving.metric("consumer_lag_records") > 0
    ) and time.monotonic() < deadline:
        pass
    assert serving.metric("scored_transactions_total") == len(records)
    assert 'failed_transactions_total{reason="missing_field"} 1.0' in serving.get("/metrics")
    assert serving.metric("scoring_latency_seconds_count") == len(records) + 1
    assert serving.metric("batch_records_sum") == len(records) + 1
    assert serving.metric("consumer_lag_records") == 0
    assert serving.metric("worker_restarts_total") == 0
    assert serving.metric("rebalances_total") >= 2
    assert serving.metric("fraud_score_count") == len(records)
    threshold = cards_model.trained.contract.threshold
    scores = cards_model.expected_scores(records).values()
    assert serving.metric("flagged_transactions_total") == sum(score >= threshold for score in scores)
    assert serving.metric("worker_resident_memory_bytes") > 1e8
    for stage in ("decode", "score", "encode", "produce", "acknowledge"):
        assert f'stage_latency_seconds_count{{stage="{stage}"}}' in serving.get("/metrics")
    assert 'model_info{name="fraud",sha256="' in serving.get("/metrics")
    assert 'workers_ready{kafka="public",rows="reference",trees="onnxruntime"}' not in serving.get("/metrics")
    assert serving.metric("workers_ready") == 2
    assert serving.stop() == 0

    # Everything was committed: a second pool finds nothing to do, and one more record is its first.
    send(bootstrap_servers, topics.raw, [{"value": records[0]}])
    again = serve(str(cards_model.path), workers=1, kernels="off")
    assert len(read(topics.scored, len(records) + 1)) == len(records) + 1
    assert 'workers_ready{kafka="public",rows="reference",trees="onnxruntime"} 1.0' in again.get("/metrics")
    assert again.stop() == 0


def test_a_killed_worker_loses_nothing_and_keeps_the_order(
    generated_model: Any,
    bootstrap_servers: str,
    topics: Any,
    serve: Any,
    read: Any,
) -> None:
    count = 20_000
    table = synthetic.frame(count, first=10_000).drop(columns=["isFraud"])
    records = to_records(table)
    serving = serve(str(generated_model.path), workers=2)
    victim = serving.worker_ids()[0]
    killed: list[float] = []

    def kill_in_the_middle(sent: Any) -> None:
        if not killed and serving.metric("scored_transactions_total") > count / 10:
            os.kill(victim, signal.SIGKILL)
            killed.append(sent.sent)

    told = replay(
        keyed(records, "card1"),
        bootstrap_servers=bootstrap_servers,
        topic=topics.raw,
        rate=4_000,
        report=kill_in_the_middle,
    )
    assert told.acknowledged == count
    assert killed
    assert killed[0] < count
    serving.await_line("restarting it")
    serving.await_line("ready with")

    order: dict[bytes, list[int]] = defaultdict(list)
    scores: dict[int, float] = {}
    for message in read(topics.scored, count, lambda m: orjson.loads(m.value)["TransactionID"]):
        answer = orjson.loads(message.value)
        identifier = answer["TransactionID"]
        if identifier in scores:  # at least once: read again from the last committed offset
            assert answer["fraud_score"] == scores[identifier]
        else:
            scores[identifier] = answer["fraud_score"]
            order[message.key].append(identifier)
    expected = generated_model.expected_scores(records)
    assert scores.keys() == expected.keys()
    np.testing.assert_allclose([scores[i] for i in expected], list(expected.values()), rtol=1e-15)
    # Identifiers count up in the order of sending.
    assert all(a < b for identifiers in order.values() for a, b in itertools.pairwise(identifiers))
    assert victim not in serving.worker_ids()
    assert serving.metric("worker_restarts_total") == 1
    assert serving.stop() == 0


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_result_that_does_not_fit_its_topic_is_a_rejection(
    cards_model: Any, bootstrap_servers: str, topics: Any, serve: Any, read: Any, kernels: str
) -> None:
    """It is in the middle of a batch, and its neighbours are scored."""
    records = cards_model.trained.records[:300]
    narrow = f"{topics.scored}-narrow"
    admin.create_topics(bootstrap_servers, [narrow], 4, {"max.message.bytes": "1000000"})
    messages = [{"value": record, "partition": number % 4} for number, record in enumerate(records)]
    messages[150]["headers"] = [("trace", os.urandom(1_020_000))]  # taken over by the result, so that it does not fit
    send(bootstrap_servers, topics.raw, messages)

    serving = serve(str(cards_model.path), workers=1, kernels=kernels, output=narrow)
    wanted = {orjson.loads(record)["ID"] for record in [*records[:150], *records[151:]]}
    found = read(narrow, len(wanted), lambda message: orjson.loads(message.value)["ID"])
    assert {orjson.loads(message.value)["ID"] for message in found} == wanted
    (rejected,) = read(topics.rejected, 1)
    assert (rejected.value, rejected.header("saker.error.code")) == (records[150], "undeliverable")
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


def test_records_that_come_late_are_scored_and_marked(
    cards_model: Any, bootstrap_servers: str, topics: Any, serve: Any, read: Any
) -> None:
    records = cards_model.trained.records[:6]
    serving = serve(str(cards_model.path), workers=1, options=["--late-ms", "60000"])
    now_ms = int(time.time() * 1000)
    sent = [{"value": record, "partition": 0, "timestamp": now_ms - 90_000 * (n % 2)} for n, record in enumerate(records)]
    send(bootstrap_servers, topics.raw, sent)
    results = [orjson.loads(message.value) for message in read(topics.scored, len(records))]
    assert [result.get("late") for result in results] == [None, True] * 3
    assert {result["ID"]: result["fraud_score"] for result in results} == cards_model.expected_scores(records)
    while serving.metric("late_transactions_total") < 3:
        assert serving.process.poll() is None
    assert serving.metric("late_transactions_total") == 3
    assert serving.stop() == 0


def test_workers_do_not_outlive_a_killed_parent(cards_model: Any, serve: Any) -> None:
    serving = serve(str(cards_model.path), workers=2)
    workers = [os.pidfd_open(worker) for worker in serving.worker_ids()]
    assert len(workers) == 2
    serving.process.kill()
    for worker in workers:
        assert select.select([worker], [], [], 30)[0], "a worker goes on without its parent"


def test_topics_that_do_not_fit_are_named(cards_model: Any, bootstrap_servers: str, topics: Any) -> None:
    admin.create_topics(bootstrap_servers, [f"{topics.raw}-narrow"], 1)
    settings = ServeSettings(bootstrap_servers, topics.raw, f"{topics.raw}-narrow", topics.rejected)
    found = locate(str(cards_model.path), "")
    with pytest.raises(ServingError, match=r"has 1 partitions, .* has 4"):
        Pool(settings, found, lambda: found).run()
    with pytest.raises(ServingError, match=r"topics not found .*: nowhere"):
        Pool(replace(settings, output="nowhere"), found, lambda: found).run()


def test_a_second_pool_under_the_same_name_is_told_apart(cards_model: Any, serve: Any) -> None:
    first = serve(str(cards_model.path), workers=1)
    second = serve(str(cards_model.path), workers=1)
    assert "use another --instance for this pool" in first.await_line("another pool serves group")
    assert first.process.wait(60) == 1
    assert second.stop() == 0


def test_a_pool_that_stops_leaves_its_group_at_once(
    cards_model: Any, bootstrap_servers: str, topics: Any, serve: Any, read: Any
) -> None:
    first = serve(str(cards_model.path), workers=2, options=["--instance", "first"])
    second = serve(str(cards_model.path), workers=1, options=["--instance", "second"])
    assert first.stop() == 0
    group = groups.GroupAdmin(bootstrap_servers)
    while not (found := group.describe(topics.group, topics.raw)) or not found.stable:
        pass
    assert list(found.members) == ["second-0"]
    records = cards_model.trained.records[:40]
    send(bootstrap_servers, topics.raw, [{"value": record, "partition": n % 4} for n, record in enumerate(records)])
    read(topics.scored, len(records))
    assert second.stop() == 0


def test_the_newer_group_protocol(cards_model: Any, bootstrap_servers: str, topics: Any, serve: Any, read: Any) -> None:
    options = ["--group-protocol", "consumer"]
    first = serve(str(cards_model.path), workers=1, options=[*options, "--instance", "first"])
    second = serve(str(cards_model.path), workers=1, options=[*options, "--instance", "second"])
    records = cards_model.trained.records[:400]
    send(bootstrap_servers, topics.raw, [{"value": record, "partition": n % 4} for n, record in enumerate(records[:200])])
    assert len(read(topics.scored, 200)) == 200
    assert first.stop() == 0
    send(bootstrap_servers, topics.raw, [{"value": record, "partition": n % 4} for n, record in enumerate(records[200:])])
    identifiers = [orjson.loads(message.value)["ID"] for message in read(topics.scored, 400)]
    assert sorted(identifiers) == sorted(cards_model.expected_scores(records))
    assert second.stop() == 0


def test_scores_in_the_topic_are_verified_and_a_wrong_one_is_found(
    generated_model: Any, bootstrap_servers: str, topics: Any, serve: Any, read: Any, tmp_path: Path
) -> None:
    records = to_records(synthetic.frame(3_000, seed=5).drop(columns=["isFraud"]))
    serve(str(generated_model.path))
    send(bootstrap_servers, topics.raw, [{"value": record, "key": str(n).encode()} for n, record in enumerate(records)])
    results = read(topics.scored, len(records))
    generated_model.booster.save_model(tmp_path / "booster.txt")
    command = [sys.executable, "-m", "saker", "verify", "--bootstrap-servers", bootstrap_servers, "--last", "2000"]
    command += ["--input", topics.raw, "--output", topics.scored]
    command += ["--model", str(generated_model.path), "--booster", str(tmp_path / "booster.txt")]

    def verified() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    right = verified()
    assert right.returncode == 0, right.stdout + right.stderr
    checked = int(re.search(r"OK: ([\d,]+) scores", right.stdout)[1].replace(",", ""))  # type: ignore[index]
    assert 1000 <= checked <= 2001  # of each partition the same share

    answer = orjson.loads(results[-1].value)
    wrong = orjson.dumps({**answer, "fraud_score": 1 - answer["fraud_score"]})
    send(bootstrap_servers, topics.scored, [{"value": wrong, "partition": results[-1].partition}])
    told = verified()
    assert told.returncode == 1
    assert f"score      {answer['TransactionID']}: produced {1 - answer['fraud_score']!r}" in told.stdout


def test_a_model_that_changes_is_followed_and_one_that_is_broken_is_refused(
    generated_model: Any, bootstrap_servers: str, topics: Any, serve: Any, read: Any, tmp_path: Path
) -> None:
    file, first = tmp_path / "fraud.onnx", generated_model.path.read_bytes()

    def put(model: bytes) -> str:
        (tmp_path / "new").write_bytes(model)
        (tmp_path / "new").replace(file)
        return f"fraud/{hashlib.sha256(model).hexdigest()[:8]}"

    names = [put(first)]
    other = onnx.load_from_string(first)
    other.doc_string = "the same trees, another file"
    serving = serve(str(file), workers=2)
    records = to_records(synthetic.frame(6_000, seed=9).drop(columns=["isFraud"]))
    seen: list[str] = []

    def change_in_the_middle(sent: Any) -> None:
        if not seen and sent.acknowledged > 500:
            seen.append(put(b"no model"))
            assert "not an ONNX file" in serving.await_line("running pools keep their model")
            names.append(put(other.SerializeToString()))
            assert names[1] in serving.await_line("all workers score with")

    pairs = [(str(number).encode(), record) for number, record in enumerate(records)]
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=1500, report=change_in_the_middle)
    results = [orjson.loads(result.value) for result in read(topics.scored, len(records))]
    assert {result["TransactionID"] for result in results} == set(generated_model.expected_scores(records))
    assert len(results) == len(records)
    assert {result["model"] for result in results} == set(names)
    assert 'model_loads_total{result="refused"} 1.0' in serving.get("/metrics")
    assert 'model_loads_total{result="loaded"} 1.0' in serving.get("/metrics")
    assert f'version="{names[1].partition("/")[2]}"' in serving.get("/metrics")
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0
