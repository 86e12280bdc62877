"""Records whose results Kafka does not take: each is a rejection, and neither order nor score of the others changes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kafka import KafkaProducer

from saker.engine.kafka import clients
from saker.training import synthetic
from saker.training.tables import to_records
from tests.support import produce
from tests.support.broker import configure
from tests.support.ledger import balance
from tests.support.serving import PARTITIONS, Topics

DAY_MS = 86_400_000
NO_LIMIT = str(2**63 - 1)
N = 1_000


class NotText(str):
    """A header name that is not UTF-8, for kafka-python."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"tr\xffce"


def records(count: int = N, seed: int = 41) -> list[bytes]:
    return to_records(synthetic.frame(count, seed=seed).drop(columns=["isFraud"]))


def with_identifier(record: bytes, identifier: bytes) -> bytes:
    start = record.index(b'"TransactionID":') + len(b'"TransactionID":')
    return record[:start] + identifier + record[record.index(b",", start) :]


def send(bootstrap_servers: str, topic: str, sent: list[dict[str, Any]]) -> None:
    """Large records, compressed; whoever has no partition goes round."""
    spread = [{"partition": n % PARTITIONS, "key": b"%d" % (n % 50), **message} for n, message in enumerate(sent)]
    produce.send(bootstrap_servers, topic, spread, **{"compression.type": "gzip"}, **clients.room_for(64 << 20))


def odd(good: list[bytes]) -> list[dict[str, Any]]:
    """They fit the topic of transactions, compressed, and nothing that is made of them fits an output topic."""
    now = int(time.time() * 1000)
    return [
        {"value": with_identifier(good[0], b'"%b"' % (b"x" * 1_600_000))},
        {"value": with_identifier(good[1], b'"%b"' % (b"\\u00e9" * 600_000))},
        {"value": with_identifier(good[2], b"1"), "key": b"k" * 1_100_000},
        {"value": with_identifier(good[3], b"2"), "headers": [("large", b"h" * 600_000)] * 2},
        {"value": with_identifier(good[4], b"3"), "timestamp": now + 30 * DAY_MS},
        {"value": with_identifier(good[5], b"4"), "timestamp": now + 400_000 * DAY_MS},
        {"value": b"{" + b" " * 3_000_000},
        {"value": b"{", "key": b"k" * 1_100_000, "headers": [("large", b"h" * 1_100_000)]},
        {"value": None, "headers": [("n" * 1_100_000, None)]},
    ]


def mixed(good: list[bytes], bad: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = [{"value": record} for record in good]
    for number, record in enumerate(bad):
        sent.insert(50 + number * (len(good) // (len(bad) + 1)), record)
    return sent


@pytest.mark.parametrize(
    ("delivery", "transport"), [("at_least_once", "native"), ("at_least_once", "public"), ("exactly_once", "native")]
)
def test_no_record_stops_a_pool(
    delivery: str,
    transport: str,
    generated_model: Any,
    bootstrap_servers: str,
    topics: Topics,
    serve: Any,
    read: Any,
) -> None:
    configure(bootstrap_servers, topics.raw, {"message.timestamp.after.max.ms": NO_LIMIT})
    good = records()
    bad = odd(records(20, seed=43))
    send(bootstrap_servers, topics.raw, mixed(good, bad))
    options = ["--delivery", delivery, "--transport", transport]
    serving = serve(str(generated_model.path), workers=1, options=options, ready=False)
    values = {record["value"] or b"" for record in bad}
    ledger = balance(bootstrap_servers, topics, N + len(bad), values, generated_model.expected_scores)
    found = (ledger.lost, ledger.wrong, ledger.disorder, ledger.rejected, ledger.repeated)
    assert found == (0, 0, 0, len(bad), 0)
    told = [record.header("saker.error.code") for record in read(topics.rejected, len(bad))]
    assert sorted(told) == ["empty_record", "invalid_json", "invalid_json"] + ["undeliverable"] * 6
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_what_a_topic_refuses_since_its_limits_changed_is_found_and_rejected(
    delivery: str, generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    serving = serve(str(generated_model.path), workers=1, options=["--delivery", delivery])
    configure(bootstrap_servers, topics.scored, {"message.timestamp.before.max.ms": "3600000"})
    old = int(time.time() * 1000) - 2 * DAY_MS
    bad: list[dict[str, Any]] = [
        {"value": with_identifier(record, b"%d" % number), "timestamp": old}
        for number, record in enumerate(records(3, seed=43))
    ]
    send(bootstrap_servers, topics.raw, mixed(records(), bad))
    values = {record["value"] for record in bad}
    ledger = balance(bootstrap_servers, topics, N + len(bad), values, generated_model.expected_scores)
    assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.rejected) == (0, 0, 0, len(bad))
    told = read(topics.rejected, len(bad))
    assert {record.header("saker.error.code") for record in told} == {"undeliverable"}
    assert serving.stop() == 0


def test_a_compacted_topic_of_results(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    for topic in (topics.scored, topics.rejected):
        configure(bootstrap_servers, topic, {"cleanup.policy": "compact"})
    odd_ones = enumerate(records(5, seed=43))
    bad: list[dict[str, Any]] = [{"value": with_identifier(record, b"%d" % number), "key": None} for number, record in odd_ones]
    sent = mixed(records(), bad)
    for number, record in enumerate(sent):
        record.setdefault("key", b"%d" % number)  # compaction keeps one record of each key
    send(bootstrap_servers, topics.raw, sent)
    serving = serve(str(generated_model.path), workers=1, ready=False)
    assert "accepts no record without a key" in serving.await_line(topics.scored)
    ledger = balance(
        bootstrap_servers, topics, N + len(bad), {record["value"] for record in bad}, generated_model.expected_scores
    )
    assert (ledger.lost, ledger.wrong, ledger.disorder, ledger.rejected) == (0, 0, 0, len(bad))
    assert {record.header("saker.error.code") for record in read(topics.rejected, len(bad))} == {"undeliverable"}
    assert serving.stop() == 0


@pytest.mark.parametrize("transport", ["native", "public"])
def test_header_names_that_are_not_utf8(
    transport: str, generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    good = records(40)
    good[7] = b"{"
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)  # confluent_kafka's takes text only
    for record in good:
        producer.send(topics.raw, record, headers=[(NotText("x"), b"1")], partition=0)
    producer.flush(60)
    producer.close()
    serving = serve(str(generated_model.path), workers=1, options=["--transport", transport])
    assert len(read(topics.scored, 39)) == 39
    (rejected,) = read(topics.rejected, 1)
    assert rejected.header("saker.error.code") == "invalid_json"
    if transport == "native":
        assert rejected.header("tr\\xffce") == "1"
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0


def test_a_record_of_20_mb_where_the_topics_allow_it(
    generated_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any
) -> None:
    for topic in (topics.raw, topics.scored, topics.rejected):
        configure(bootstrap_servers, topic, {"max.message.bytes": str(40 << 20)})
    large = with_identifier(records(1)[0], b'"%b"' % (b"x" * (20 << 20)))
    send(bootstrap_servers, topics.raw, [{"value": large}, {"value": b"{" + b" " * (25 << 20)}, {"value": records(1)[0]}])
    serving = serve(str(generated_model.path), workers=1)
    results = read(topics.scored, 2)
    assert max(len(record.value) for record in results) > 20 << 20
    (rejected,) = read(topics.rejected, 1)
    assert len(rejected.value) == (25 << 20) + 1
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0
