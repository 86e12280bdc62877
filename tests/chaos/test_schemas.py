"""A producer that changes its schema again and again, and a registry that comes and goes, while workers are killed."""

from __future__ import annotations

import io
import os
import random
import signal
import struct
from collections import Counter
from typing import Any

import fastavro
import pytest

from saker.engine.kafka.reader import read_topic
from saker.engine.kafka.replay import replay
from tests.support.ledger import balance
from tests.support.payments import ADDED, FIRST, GONE, REMOVED, Trained, payment, written
from tests.support.periodic import every
from tests.support.registry import breakable, register
from tests.support.serving import Serve, Topics

RATE, SECONDS = 1_500, 12
SCHEMAS = (FIRST, ADDED, REMOVED, GONE)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_schemas_evolve_while_workers_are_killed(
    delivery: str, payments_model: Trained, bootstrap_servers: str, registry: str, topics: Topics, serve: Serve
) -> None:
    numbers = [register(registry, f"{topics.raw}-value", one) for one in SCHEMAS]
    parsed = {number: fastavro.parse_schema(one) for number, one in zip(numbers, SCHEMAS, strict=True)}
    rng, count = random.Random(5), RATE * SECONDS
    values: list[bytes] = []
    bad: dict[bytes, str] = {}
    for number in range(count):
        stage = number * len(SCHEMAS) // count  # each schema is the newest for a while, and the older ones go on
        which = rng.choice([stage, stage, rng.randint(0, stage)])
        record = payment(rng, number, SCHEMAS[which])
        value = written(record, SCHEMAS[which], numbers[which])
        why = "schema_mismatch" if which == 3 else "" if record["card"] else "missing_field"
        if number % 50 == 7:
            value, why = struct.pack(">bI", 0, 987_654) + value[5:], "unknown_schema"
        elif number % 50 == 9 and which != 3:
            value, why = value[:-1], "invalid_avro"
        if why:
            bad[value] = why
        values.append(value)

    def read(value: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), parsed[int.from_bytes(value[1:5], "big")], None)

    def scores_of(good: list[bytes]) -> dict[str, float]:
        return payments_model.scores({(record := read(value))["id"]: record for value in good})

    chosen = random.Random(3)
    with breakable(registry) as proxy:
        options = ["--delivery", delivery, "--format", "avro", "--registry", proxy.url]
        serving = serve(str(payments_model.path), workers=2, options=options)

        def trouble() -> None:
            proxy.mode = chosen.choice(["up", "up", "down", "denied", "nonsense", "slow"])
            if workers := serving.worker_ids():
                os.kill(chosen.choice(workers), signal.SIGKILL)

        with every(2.0, trouble):
            pairs = ((str(number % 50).encode(), value) for number, value in enumerate(values))
            replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=RATE)
        proxy.mode = "up"
        ledger = balance(
            bootstrap_servers, topics, count, bad, scores_of, 1e-15, identify=lambda value: read(value)["id"], id_field="id"
        )
        assert (ledger.sent, ledger.lost, ledger.wrong, ledger.disorder) == (count, 0, 0, 0)
        if delivery == "exactly_once":
            assert ledger.repeated == 0
        refused = {
            (one.header("saker.error.partition"), one.header("saker.error.offset")): one
            for one in read_topic(bootstrap_servers, topics.rejected, 0)
        }
        told = Counter((bad[one.value or b""], one.header("saker.error.code")) for one in refused.values())
        assert {code for code, _ in told} == {"schema_mismatch", "missing_field", "unknown_schema", "invalid_avro"}
        assert all(expected == code for expected, code in told)
        assert told.total() == len(bad)
        assert serving.metric("worker_restarts_total") >= 3
        assert serving.stop() == 0
