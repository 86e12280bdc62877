"""Topics of Debezium and CloudEvents, on a real Kafka: rows are scored, deletes skipped or rejected, nothing is lost."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.support.inbox import until
from tests.support.produce import send
from tests.support.scores import Model
from tests.support.serving import Read, Serve, Topics


def event(op: str, row: bytes) -> bytes:
    """A change of a row, as Debezium writes it as JSON without a schema."""
    before = b"null" if op in "cr" else row
    after = b"null" if op == "d" else row
    source = b'{"connector":"mysql","name":"shop","db":"payments","table":"payment","ts_ms":1795525200000,"pos":154}'
    return b'{"before":%b,"after":%b,"source":%b,"op":"%b","ts_ms":1795525200456}' % (before, after, source, op.encode())


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("deletes", ["skip", "reject"])
def test_a_topic_of_debezium(
    deletes: str, delivery: str, cards_model: Model, bootstrap_servers: str, topics: Topics, serve: Serve, read: Read
) -> None:
    rows = cards_model.trained.records
    expected = cards_model.expected_scores(rows)
    options = ["--envelope", "debezium", "--delivery", delivery]
    serving = serve(str(cards_model.path), options=options if deletes == "skip" else [*options, "--deletes", "reject"])
    messages: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        messages.append({"value": event("cru"[number % 3], row), "partition": number % 4})
        if number % 10 == 0:
            messages += [{"value": event("d", row), "partition": number % 4}, {"value": None, "partition": number % 4}]
        if number % 100 == 0:
            messages.append({"value": b'{"op":"c","after":{}}', "partition": number % 4})
    for message in messages[:12]:  # alone: the fast path, and records without a result between its own
        send(bootstrap_servers, topics.raw, [message])
    send(bootstrap_servers, topics.raw, messages[12:300])
    for worker in serving.worker_ids():
        os.kill(worker, signal.SIGKILL)
    send(bootstrap_servers, topics.raw, messages[300:])
    results = read(topics.scored, len(rows), lambda record: orjson.loads(record.value or b"")["ID"])
    answers = {answer["ID"]: answer["fraud_score"] for answer in (orjson.loads(one.value or b"") for one in results)}
    assert answers == pytest.approx(expected, rel=1e-15)
    n_deletes = len(range(0, len(rows), 10))
    wanted = {"missing_field": len(range(0, len(rows), 100))}
    if deletes == "reject":
        wanted |= {"deleted_row": n_deletes, "empty_record": n_deletes}
    origin = ("saker.error.partition", "saker.error.offset")
    rejected = read(topics.rejected, sum(wanted.values()), lambda one: ":".join(map(one.header, origin)))
    first = {tuple(map(one.header, origin)): one.header("saker.error.code") for one in rejected}
    assert Counter(first.values()) == wanted
    if deletes == "skip":
        until("those after the restart are counted", lambda: serving.metric("skipped_transactions_total") >= n_deletes)
    until("all is committed", lambda: serving.metric("consumer_lag_records") == 0)
    assert serving.stop() == 0


def test_a_topic_of_cloud_events(cards_model: Model, bootstrap_servers: str, topics: Topics, serve: Serve, read: Read) -> None:
    rows = cards_model.trained.records[:200]
    serve(str(cards_model.path), options=["--envelope", "cloudevents"])
    start = b'{"specversion":"1.0","type":"com.example.payment","source":"/shop","id":"%d","data":'
    send(bootstrap_servers, topics.raw, [{"value": start % at + row + b"}"} for at, row in enumerate(rows)])
    results = read(topics.scored, len(rows))
    answers = {answer["ID"]: answer["fraud_score"] for answer in (orjson.loads(one.value or b"") for one in results)}
    assert answers == pytest.approx(cards_model.expected_scores(rows), rel=1e-15)
