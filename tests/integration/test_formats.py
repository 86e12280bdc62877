"""Avro and Protobuf on a real Kafka with a real registry: every record is scored as LightGBM would, or rejected by name."""

from __future__ import annotations

import io
import os
import random
import signal
import struct
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from saker.engine.kafka import clients
from saker.engine.kafka.reader import Record
from saker.engine.records.schema_fields import schema_fields
from saker.engine.schema_registry import Registry
from saker.training import synthetic
from saker.training.tables import read_csv, to_records
from tests.engine.records.protobuf_cases import sized, tag, varint
from tests.support.command_line import main_here
from tests.support.inbox import until
from tests.support.payments import ADDED, FIRST, GONE, NETWORKS, REMOVED, Trained, payment, written
from tests.support.produce import send as produce
from tests.support.protoc import message_class
from tests.support.registry import breakable, register
from tests.support.scores import Model
from tests.support.serving import Read, Serve, Topics

ULB = Path(__file__).parents[1] / "data/ulb_creditcard_sample.csv"


def send(bootstrap_servers: str, topic: str, values: list[bytes], partition: Callable[[int], int]) -> None:
    producer = clients.producer(bootstrap_servers)
    for at, value in enumerate(values):
        producer.produce(topic, value, partition=partition(at))
        producer.poll(0)
    assert producer.flush(30) == 0


def name_of(record: Record) -> str:
    return str(orjson.loads(record.value or b"")["id"])


def code(record: Record) -> str:
    return record.header("saker.error.code")


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_schema_that_changes_under_load(
    delivery: str, bootstrap_servers: str, registry: str, topics: Topics, serve: Serve, read: Read, payments_model: Trained
) -> None:
    schemas = [FIRST, ADDED, REMOVED, GONE]
    numbers = [register(registry, f"{topics.raw}-value", one) for one in schemas]
    serve(str(payments_model.path), options=["--format", "avro", "--registry", registry, "--delivery", delivery])
    rng = random.Random(7)
    values: list[bytes] = []
    good: dict[str, dict[str, Any]] = {}
    expected: Counter[str] = Counter()
    for number in range(6_000):
        which = rng.choices([0, 1, 2, 3], [5, 1 + number // 1000, 1, 1])[0]
        record = payment(rng, number, schemas[which])
        value = written(record, schemas[which], numbers[which])
        if number % 50 == 7:
            value = value[: len(value) // 2]
        elif number % 50 == 9:
            value = struct.pack(">bI", 0, 987_654) + value[5:]
        reason = (
            "unknown_schema" if number % 50 == 9
            else "schema_mismatch" if which == 3
            else "invalid_avro" if number % 50 == 7
            else "missing_field" if record["card"] is None
            else ""
        )  # fmt: skip
        values.append(value)
        if reason:
            expected[reason] += 1
        else:
            of = fastavro.parse_schema(schemas[which])
            read_back: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), of, None)
            good[record["id"]] = read_back
    send(bootstrap_servers, topics.raw, values, lambda at: at % 4)
    results = read(topics.scored, len(good), name_of)
    rejected = read(
        topics.rejected, expected.total(), lambda record: record.header("saker.error.offset") + str(record.partition)
    )
    answers = [orjson.loads(record.value or b"") for record in results]
    assert len(answers) == len(good)
    assert {answer["id"]: answer["fraud_score"] for answer in answers} == payments_model.scores(good)
    assert Counter(map(code, rejected)) == expected
    assert {record.header("saker.error.field") for record in rejected if code(record) == "schema_mismatch"} == {"card.amount"}
    assert {record.value for record in rejected} <= set(values)


def test_a_registry_that_is_away_holds_up_its_partitions_only(
    bootstrap_servers: str, registry: str, topics: Topics, serve: Serve, read: Read, payments_model: Trained
) -> None:
    first, second = (register(registry, f"{topics.raw}-value", one) for one in (FIRST, ADDED))
    rng = random.Random(8)
    with breakable(registry) as proxy:
        serving = serve(str(payments_model.path), options=["--format", "avro", "--registry", proxy.url])
        records = [payment(rng, number, FIRST) | {"id": f"t{number}"} for number in range(1, 61)]
        send(bootstrap_servers, topics.raw, [written(record, FIRST, first) for record in records[:8]], lambda at: at % 4)
        assert len(read(topics.scored, 8)) == 8
        proxy.mode = "down"
        mixed = [
            written(payment(rng, 1000, ADDED), ADDED, second),
            *(written(record, FIRST, first) for record in records[8:20]),
        ]
        send(bootstrap_servers, topics.raw, mixed, lambda _: 0)
        send(bootstrap_servers, topics.raw, [written(record, FIRST, first) for record in records[20:40]], lambda at: 1 + at % 3)
        assert "status 503" in serving.await_line(f"cannot fetch schema {second}")
        others = read(topics.scored, 28)
        assert {record.partition for record in others[8:]} == {1, 2, 3}
        until("one waits", lambda: serving.metric("schema_waiting_partitions") == 1)
        with pytest.raises(OSError, match="503"):
            serving.get("/readyz")
        for worker in serving.worker_ids():  # what they knew is gone, but for the cache of schemas
            os.kill(worker, signal.SIGKILL)
        send(bootstrap_servers, topics.raw, [written(record, FIRST, first) for record in records[40:]], lambda at: 1 + at % 3)
        serving.await_line("is the one of an earlier answer")
        proxy.mode = "denied"
        serving.await_line("is the password in SAKER_REGISTRY_CONFIG right?")
        proxy.mode = "nonsense"
        serving.await_line("status 404, expected 200")
        proxy.mode = "slow"
        results = read(topics.scored, 61, name_of)
        until("none waits", lambda: serving.metric("schema_waiting_partitions") == 0)
        serving.get("/readyz")
    held = [orjson.loads(record.value or b"")["id"] for record in results if record.partition == 0]
    assert held[2:] == ["t1000", *(f"t{number}" for number in range(9, 21))]
    assert serving.metric("failed_transactions") == 0


PROTO = """syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Envelope { Payment payment = 1; }
message Payment {
  string id = 1; google.protobuf.Timestamp at = 2; bool online = 3; Card card = 4;
  message Card { optional double amount = 1; Network network = 2; optional double limit = 3; optional int32 age = 4; }
}
enum Network { VISA = 0; AMEX = 1; OTHER = 2; }
"""


def as_protobuf(record: dict[str, Any]) -> bytes:
    card, seconds = record["card"], record["at"] // 1000
    parts = [tag(1, 1) + struct.pack("<d", float(card["amount"])), tag(2, 0) + varint(NETWORKS.index(card["network"]))]
    if card["limit"] is not None:
        parts.append(tag(3, 1) + struct.pack("<d", card["limit"]))
    if card["age"] is not None:
        parts.append(tag(4, 0) + varint(card["age"]))
    time = tag(1, 0) + varint(seconds)
    fields = tag(1, 2) + sized(record["id"].encode()) + tag(2, 2) + sized(time) + tag(3, 0) + varint(record["online"])
    return fields + tag(4, 2) + sized(b"".join(parts))


def test_protobuf_is_scored_as_avro(
    bootstrap_servers: str, registry: str, topics: Topics, serve: Serve, read: Read, payments_model: Trained
) -> None:
    number = register(registry, f"{topics.raw}-value", PROTO, "PROTOBUF")
    serve(str(payments_model.path), options=["--format", "protobuf", "--registry", registry])
    rng = random.Random(10)
    records = [payment(rng, at, FIRST) for at in range(1, 90)]
    start = struct.pack(">bI", 0, number) + b"\2\2"  # the second message of the file
    values = [start + as_protobuf(record) for record in records]
    send(bootstrap_servers, topics.raw, [*values, values[0][:-1], start[:5] + b"\0"], lambda at: at % 4)
    results = read(topics.scored, 89, name_of)
    parsed = {
        record["id"]: fastavro.schemaless_reader(io.BytesIO(written(record, FIRST, 0)[5:]), fastavro.parse_schema(FIRST), None)
        for record in records
    }
    answers = {name_of(record): orjson.loads(record.value or b"")["fraud_score"] for record in results}
    assert answers == payments_model.scores(parsed)  # type: ignore[arg-type]
    assert sorted(map(code, read(topics.rejected, 2))) == ["invalid_protobuf", "schema_mismatch"]


def test_records_of_one_schema_without_an_id(
    bootstrap_servers: str,
    topics: Topics,
    serve: Serve,
    read: Read,
    payments_model: Trained,
    tmp_path: Path,
) -> None:
    file = tmp_path / "payment.avsc"
    file.write_bytes(orjson.dumps(FIRST))
    serve(str(payments_model.path), options=["--format", "avro", "--schema", str(file)])
    rng = random.Random(9)
    records = [payment(rng, number, FIRST) for number in range(1, 90)]
    send(bootstrap_servers, topics.raw, [written(record, FIRST, 0)[5:] for record in records], lambda at: at % 4)
    assert len({orjson.loads(one.value or b"")["id"] for one in read(topics.scored, 89)}) == 89


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_results_have_a_schema_in_the_registry(
    kind: str,
    bootstrap_servers: str,
    registry: str,
    topics: Topics,
    serve: Serve,
    read: Read,
    payments_model: Trained,
    tmp_path: Path,
) -> None:
    number = register(registry, f"{topics.raw}-value", FIRST)
    options = ["--format", "avro", "--registry", registry, "--output-format", kind]
    serve(str(payments_model.path), options=options)
    rng = random.Random(11)
    records = [payment(rng, at, FIRST) for at in range(1, 90)]
    values = [written(record, FIRST, number) for record in records]
    for at, value in enumerate(values[:5], 1):  # alone: the fast path
        send(bootstrap_servers, topics.raw, [value], lambda _: 0)
        read(topics.scored, at)
    send(bootstrap_servers, topics.raw, values[5:], lambda at: at % 4)
    results = read(topics.scored, 89, lambda record: (record.value or b"")[5:20])
    reader = result_reader(kind, registry, topics.scored, tmp_path)
    answers = {answer["id"]: answer for answer in (reader(record.value or b"") for record in results)}
    parsed: Any = {
        record["id"]: fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(FIRST), None)
        for record, value in zip(records, values, strict=True)
    }
    assert {name: answer["fraud_score"] for name, answer in answers.items()} == payments_model.scores(parsed)
    assert all(answer["model"].startswith("payments/") for answer in answers.values())
    assert all(answer["is_fraud"] is (answer["fraud_score"] >= 0.5) for answer in answers.values())
    verified = main_here(
        "verify", "--bootstrap-servers", bootstrap_servers, "--input", topics.raw, "--output", topics.scored,
        "--model", str(payments_model.path), "--booster", str(payments_model.path.parent / "booster.txt"), *options[:4],
        folder=tmp_path,
    )  # fmt: skip
    assert "OK: 89 scores of 89 records, again by model and Booster" in verified.stdout


def result_reader(kind: str, registry: str, topic: str, folder: Path) -> Callable[[bytes], dict[str, Any]]:
    """Reads results as a consumer does, by the schema that the registry has."""
    newest, _, schema = Registry(registry).version(f"{topic}-value", "latest")
    prefix = struct.pack(">bI", 0, newest) + (b"\0" if kind == "protobuf" else b"")
    if kind == "avro":
        of = fastavro.parse_schema(orjson.loads(schema.text))

        def parse(data: bytes) -> dict[str, Any]:
            told: Any = fastavro.schemaless_reader(io.BytesIO(data), of, None)
            return dict(told)
    else:
        score = message_class(schema.text, "saker.Score", folder)

        def parse(data: bytes) -> dict[str, Any]:
            told = score.FromString(data)
            return {field.name: getattr(told, field.name) for field in score.DESCRIPTOR.fields}

    def reader(value: bytes) -> dict[str, Any]:
        assert value.startswith(prefix)
        return parse(value[len(prefix) :])

    return reader


@pytest.mark.parametrize(
    ("kind", "as_format"), [("csv", "avro"), ("parquet", "avro"), ("generated", "avro"), ("csv", "protobuf")]
)
def test_a_table_is_replayed_as_avro_or_protobuf(
    kind: str,
    as_format: str,
    cards_model: Model,
    generated_model: Model,
    bootstrap_servers: str,
    registry: str,
    topics: Topics,
    serve: Serve,
    read: Read,
    tmp_path: Path,
) -> None:
    """The scores are those of the file, which is scored as JSON."""
    model = generated_model if kind == "generated" else cards_model
    source = ["--generate", "300", "--seed", "9"]
    if kind == "csv":
        source = ["--file", str(ULB)]
    elif kind == "parquet":
        pq.write_table(pa.csv.read_csv(ULB), tmp_path / "cards.parquet")
        source = ["--file", str(tmp_path / "cards.parquet")]
    key, label = ("card1", "isFraud") if kind == "generated" else ("ID", "Class")
    options = ["--topic", topics.raw, "--bootstrap-servers", bootstrap_servers, "--key", key, "--label", label, "--id", "ID"]
    options += ["--format", as_format, "--registry", registry]
    if as_format == "protobuf":
        columns = ["double Time", *(f"double V{at}" for at in range(1, 29)), "optional double Amount", "int64 ID"]
        fields = " ".join(f"{column} = {number};" for number, column in enumerate(columns, 1))
        (tmp_path / "cards.proto").write_text(f'syntax = "proto3"; message Transaction {{ {fields} }}')
        options += ["--schema", "cards.proto"]
    sent = main_here("replay", *source, *options, folder=tmp_path)
    assert sent.returncode == 0, sent.stderr
    serve(str(model.path), options=["--format", as_format, "--registry", registry])
    if kind == "generated":
        records = to_records(synthetic.frame(300, 9).drop(columns=["isFraud"]))
    else:
        records = to_records(read_csv(ULB, "ID").drop(columns=["Class"]))
    expected = model.expected_scores(records)
    results = [orjson.loads(one.value or b"") for one in read(topics.scored, len(records))]
    answers = {answer[model.trained.contract.id_field]: answer["fraud_score"] for answer in results}
    assert answers == pytest.approx(expected, rel=1e-15)
    registered = schema_fields(Registry(registry).version(f"{topics.raw}-value", "latest")[2])
    assert label not in {one.label for one in registered}


def test_doctor_shows_how_the_model_maps_onto_the_schemas(
    registry: str, topics: Topics, payments_model: Trained, tmp_path: Path
) -> None:
    numbers = [register(registry, f"{topics.raw}-value", one) for one in (FIRST, GONE)]
    options = ["--registry", registry, "--input", topics.raw, "--model", str(payments_model.path)]
    broken = main_here("doctor", *options, folder=tmp_path)
    assert broken.returncode == 1
    assert f"version 1, schema {numbers[0]} (avro): fits" in broken.stdout
    assert f"version 2, schema {numbers[1]} (avro): REJECTED, card.amount: schema {numbers[1]}: is required" in broken.stdout
    assert "NOT IN THE SCHEMA  ->  number, required" in broken.stdout
    register(registry, f"{topics.raw}-value", ADDED)
    mended = main_here("doctor", *options, folder=tmp_path)
    assert mended.returncode == 0
    told = [line.split(maxsplit=1) for line in mended.stdout.splitlines() if "->" in line]
    assert dict(told) == {
        "card.amount": "decimal, optional  ->  number, required",
        "card.network": "enum, optional  ->  category",
        "card.limit": "double, optional  ->  number",
        "card.age": "int, optional  ->  number",
        "at": "timestamp-millis  ->  hour_of_day",
        "online": "boolean  ->  number",
        "id": "string  ->  identifier",
    }
    absent = main_here(
        "doctor", "--registry", registry, "--input", "none", "--model", str(payments_model.path), folder=tmp_path
    )
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("transport", ["native", "public"])
def test_ids_of_schemas_in_headers(
    transport: str,
    bootstrap_servers: str,
    registry: str,
    topics: Topics,
    serve: Serve,
    read: Read,
    payments_model: Trained,
    tmp_path: Path,
) -> None:
    """By GUID and by id, with records between them whose values begin with the id; a header counts more than a value."""
    numbers = [register(registry, f"{topics.raw}-value", one) for one in (FIRST, ADDED)]
    rng = random.Random(12)
    messages: list[dict[str, Any]] = []
    good: Any = {}
    for number in range(1, 300):
        of = rng.randrange(2)
        record = payment(rng, number, (FIRST, ADDED)[of])
        if record["card"] is None:
            continue
        value = written(record, (FIRST, ADDED)[of], numbers[of])
        good[record["id"]] = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema((FIRST, ADDED)[of]), None)
        headers = {0: None, 1: value[:5], 2: b"\1" + uuid.UUID(int=numbers[of]).bytes}[number % 3]
        name = "__value_schema_id"
        message = {"value": value if headers is None else value[5:], "partition": number % 4}
        messages.append(message | ({} if headers is None else {"headers": [(name, b"other"), (name, headers)]}))
    bad = [b"\1" + uuid.UUID(int=987_654).bytes, b"\1short", b""]
    with breakable(registry) as proxy:
        serve(str(payments_model.path), options=["--format", "avro", "--registry", proxy.url, "--transport", transport])
        for message in messages[:6]:
            produce(bootstrap_servers, topics.raw, [message])
        rejected = [{"value": messages[0]["value"], "headers": [("__value_schema_id", header)]} for header in bad]
        produce(bootstrap_servers, topics.raw, [*messages[6:], *rejected])
        answers = {name_of(one): orjson.loads(one.value or b"")["fraud_score"] for one in read(topics.scored, len(good))}
        assert answers == payments_model.scores(good)
        found = read(topics.rejected, 3)
        options = ["--bootstrap-servers", bootstrap_servers, "--input", topics.raw, "--output", topics.scored]
        options += ["--model", str(payments_model.path), "--format", "avro", "--registry", proxy.url]
        assert f"OK: {len(good)} scores of {len(good) + 3} records" in main_here("verify", *options, folder=tmp_path).stdout
    assert sorted(map(code, found)) == ["no_schema_id", "no_schema_id", "unknown_schema"]
    assert {dict(one.headers)["__value_schema_id"] for one in found} == set(bad)
    assert {one.value for one in found} == {messages[0]["value"]}
    named = next(one.header("saker.error.message") for one in found if code(one) == "unknown_schema")
    assert f"schema {uuid.UUID(int=987_654)} is not in the registry" in named
