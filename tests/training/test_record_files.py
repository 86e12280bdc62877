"""Parquet, Avro and JSON lines: one model, whichever of them it is trained on, and the scores that serving gives."""

from __future__ import annotations

import io
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from saker.commands.records import file_records, in_format, labelled_table
from saker.engine.contract import Contract
from saker.engine.errors import SakerError
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Format, Schema
from saker.export.proven_export import export_proven
from saker.training import avro_rows, record_files
from saker.training.fit import Settings, Trained, train
from saker.training.tables import TableError
from tests.support.command_line import main_here
from tests.support.protoc import compiled, message_class

SCHEMA: dict[str, Any] = {
    "type": "record", "name": "Payment", "namespace": "bank",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "fraud", "type": "boolean"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "raw", "type": "bytes"},
        {"name": "card", "type": {"type": "record", "name": "Card", "fields": [
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "network", "type": {"type": "enum", "name": "Network", "symbols": ["VISA", "AMEX", "OTHER"]}},
            {"name": "limit", "type": ["null", "double"]},
            {"name": "age", "type": ["int", "null"]},
            {"name": "online", "type": "boolean"},
        ]}},
    ],
}  # fmt: skip
SETTINGS = Settings(label="fraud", time="at", id_field="id", rounds=20)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    rng = random.Random(3)

    def row(number: int) -> dict[str, Any]:
        amount, network, online = rng.lognormvariate(3, 1), rng.choice(["VISA", "AMEX", "OTHER"]), rng.random() < 0.5
        return {
            "id": f"t{number}",
            "at": START + timedelta(seconds=number * 37, milliseconds=rng.randrange(1000)),
            "fraud": amount + 30 * (network == "AMEX") + 20 * online + rng.gauss(0, 20) > 90,
            "tags": ["a", "b"][: number % 3],
            "raw": b"\xff\x00",
            "card": {
                "amount": Decimal(f"{amount:.2f}"),
                "network": network,
                "limit": None if rng.random() < 0.3 else rng.uniform(0, 50),
                "age": None if rng.random() < 0.3 else rng.randrange(60),
                "online": online,
            },
        }

    made = [row(number) for number in range(4_000)]
    rng.shuffle(made)
    return made


@pytest.fixture(scope="module")
def files(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    files = {kind: folder / f"payments.{kind}" for kind in ("avro", "parquet", "jsonl")}
    with files["avro"].open("wb") as out:
        fastavro.writer(out, fastavro.parse_schema(SCHEMA), rows, codec="deflate", sync_interval=5_000)
    pq.write_table(pa.Table.from_pylist(rows), files["parquet"], row_group_size=700)
    files["jsonl"].write_bytes(b"".join(record_files.json_of(row) + b"\n" for row in rows))
    return files


def trained_on(file: Path) -> Trained:
    table, records, _ = labelled_table(file, 0, 0, SETTINGS, (None, None))
    return train(table, SETTINGS, lambda _: None, records)


@pytest.fixture(scope="module")
def by_avro(files: dict[str, Path]) -> Trained:
    return trained_on(files["avro"])


def test_the_features_are_fields_by_their_paths(by_avro: Trained) -> None:
    told = [(one.name, one.kind, one.path, one.required, one.derivation) for one in by_avro.contract.features]
    assert told == [
        ("hour_of_day", "derived", None, True, "hour_of_day"),
        ("day_of_week", "derived", None, True, "day_of_week"),
        ("card.amount", "number", "card.amount", True, None),
        ("card.network", "category", "card.network", True, None),
        ("card.limit", "number", "card.limit", False, None),
        ("card.age", "number", "card.age", False, None),
        ("card.online", "number", "card.online", True, None),
    ]
    assert by_avro.contract.id_field == "id"
    assert by_avro.metrics["roc_auc"] > 0.9


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_every_format_trains_the_same_model(kind: str, files: dict[str, Path], by_avro: Trained) -> None:
    other = trained_on(files[kind])
    assert other.booster.model_to_string() == by_avro.booster.model_to_string()
    assert other.contract.features == by_avro.contract.features
    assert (other.contract.threshold, other.metrics) == (by_avro.contract.threshold, by_avro.metrics)
    np.testing.assert_array_equal(other.scores, by_avro.scores)


def test_what_training_sees_is_what_fastavro_reads(
    files: dict[str, Path], rows: list[dict[str, Any]], by_avro: Trained
) -> None:
    read = record_files.read_records(files["avro"], "id")
    matrix = Decoder(by_avro.contract, of=read.format).decode(read.records).matrix
    networks = by_avro.contract.features[3].vocabulary
    expected = [
        [
            row["at"].hour, (row["at"].weekday() - 3) % 7, float(row["card"]["amount"]), networks.index(row["card"]["network"]),
            *(np.nan if row["card"][name] is None else row["card"][name] for name in ("limit", "age")), row["card"]["online"],
        ]
        for row in rows
    ]  # fmt: skip
    np.testing.assert_array_equal(matrix, np.array(expected, np.float32))


def test_golden_records_are_json_that_gives_the_same_rows(by_avro: Trained) -> None:
    exported = export_proven(by_avro.booster, by_avro.contract)
    assert exported.report.passed
    assert len(by_avro.contract.golden) == 8
    assert orjson.loads(by_avro.contract.golden[0].record)["raw"] is None


@pytest.mark.parametrize("kind", ["avro", "parquet", "jsonl"])
def test_score_and_verify_take_the_file(kind: str, files: dict[str, Path], by_avro: Trained, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(export_proven(by_avro.booster, by_avro.contract).model.SerializeToString())
    options = ["--model", "model.onnx", "--label", "fraud"]
    scored = main_here("score", str(files[kind]), "-o", "scores.jsonl", *options, folder=tmp_path)
    assert (scored.returncode, scored.stdout.split(" with")[0]) == (0, "scored 4000, rejected 0")
    (tmp_path / "booster.txt").write_text(by_avro.booster.model_to_string())
    sent = ["--records", str(files[kind]), "--scores", "scores.jsonl", "--booster", "booster.txt"]
    verified = main_here("verify", *sent, *options, folder=tmp_path)
    assert verified.stdout.startswith("OK: 4,000 scores of 4,000 records, again by model and Booster")


def test_fields_of_several_types_are_left_out(tmp_path: Path) -> None:
    fields = [
        {"name": "id", "type": "long"}, {"name": "t", "type": "long"}, {"name": "y", "type": "int"},
        {"name": "x", "type": "float"}, {"name": "any", "type": ["null", "long", "string"]},
        {"name": "more", "type": {"type": "map", "values": ["int", "string"]}},
    ]  # fmt: skip
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": fields})
    rows = [
        {"id": at, "t": at, "y": at % 2, "x": at % 5, "any": [None, 1, "x"][at % 3], "more": {"a": 1, "b": "x"}}
        for at in range(300)
    ]
    with (tmp_path / "a.avro").open("wb") as out:
        fastavro.writer(out, schema, rows, codec="snappy")
    settings = Settings(label="y", time="t", id_field="id", rounds=2)
    table, records, _ = labelled_table(tmp_path / "a.avro", 0, 0, settings, (None, None))
    said: list[str] = []
    trained = train(table, settings, said.append, records)
    assert [one.name for one in trained.contract.features] == ["hour_of_day", "day_of_week", "x"]
    assert "not learned from, since they are arrays, maps, bytes, times or empty: any, more" in said


def test_a_container_of_other_values_is_told(tmp_path: Path) -> None:
    with (tmp_path / "a.avro").open("wb") as out:
        fastavro.writer(out, fastavro.parse_schema({"type": "string"}), ["a", "b"])
    with pytest.raises(TableError, match="expected records, got others"):
        record_files.read_records(tmp_path / "a.avro", "id")


def test_an_avro_record_as_json_lacks_the_label(files: dict[str, Path]) -> None:
    read = file_records(files["avro"], "id", "fraud")
    record = orjson.loads(read.as_json(read.values[0]))
    assert "fraud" not in record
    assert record["card"]["network"] in {"VISA", "AMEX", "OTHER"}


def test_a_window_of_a_file(files: dict[str, Path]) -> None:
    first = START.timestamp()
    table, records, source = labelled_table(files["avro"], 0, 0, SETTINGS, (first + 1000, first + 2000))
    assert records is not None
    assert len(table) == len(records.records) == 27
    assert source["from"] == str(first + 1000)


@pytest.mark.parametrize("kind", ["avro", "parquet"])
def test_damaged_files_are_told(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    data = files[kind].read_bytes()
    for number, cut in enumerate((100, len(data) // 2, len(data) - 3)):
        file = tmp_path / f"{number}.{kind}"
        file.write_bytes(data[:cut])
        with pytest.raises(TableError, match=f"the {kind.capitalize()} (container|file) is damaged"):
            record_files.read_records(file, "id")


def test_lines_that_are_no_objects_and_fields_of_several_types_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(TableError, match="in line 2"):
        record_files.of_json([b'{"a":1}', b"[1]"], path)
    with pytest.raises(TableError, match="one type in each field"):
        record_files.of_json([b'{"a":1}', b'{"a":"x"}'], path)
    with pytest.raises(TableError, match="no records"):
        record_files.of_json([], path)


# ---- replays as Avro ----

CSV = b"id,amount,city,zip,n\n1,12.50,Oslo,0123,\n2,1e3,,,7\n"


def test_a_csv_file_as_avro(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(CSV)
    read = file_records(file, "id", "label")
    text = avro_rows.schema_of(read.columns(), "Transaction")
    types = {field["name"]: field["type"] for field in json.loads(text)["fields"]}
    assert types == {
        "id": ["null", "long"], "amount": ["null", "double"], "city": ["null", "string"], "zip": ["null", "string"],
        "n": ["null", "long"],
    }  # fmt: skip
    pairs = list(in_format([(b"k", record) for record in read.values], Schema("avro", text), 258))
    of = fastavro.parse_schema(json.loads(text))
    assert {value[:5] for _, value in pairs if value} == {b"\0\0\0\1\2"}
    assert [fastavro.schemaless_reader(io.BytesIO((value or b"")[5:]), of, None) for _, value in pairs] == [
        {"id": 1, "amount": 12.5, "city": "Oslo", "zip": "0123", "n": None},
        {"id": 2, "amount": 1000.0, "city": None, "zip": None, "n": 7},
    ]


def test_json_by_a_schema_of_ones_own(rows: list[dict[str, Any]]) -> None:
    written = in_format(
        [(None, record_files.json_of(row | {"raw": ""})) for row in rows[:200]], Schema("avro", json.dumps(SCHEMA)), None
    )
    of = fastavro.parse_schema(SCHEMA)
    read: list[Any] = [fastavro.schemaless_reader(io.BytesIO(value or b""), of, None) for _, value in written]
    assert read == [row | {"raw": b""} for row in rows[:200]]


def test_long_numbers_stay_exact() -> None:
    schema = {"type": "record", "name": "A", "fields": [{"name": "a", "type": "long"}]}
    ((_, value),) = in_format([(None, b'{"a":9007199254740993}')], Schema("avro", json.dumps(schema)), None)
    read: Any = fastavro.schemaless_reader(io.BytesIO(value or b""), fastavro.parse_schema(schema), None)
    assert read == {"a": 9007199254740993}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b'{"a":"x"}', "row 1: field a: expected long, got 'x'"),
        (b'{"a":1.5}', "row 1: field a: expected long, got '1.5'"),
        (b'{"a":1,"b":{"c":"no"}}', "row 1: field b.c: expected boolean, got 'no'"),
        (b"{}", "row 1: .*a"),
        (b"7", "row 1: "),
        (b"no", "row 1: "),
    ],
)
def test_rows_that_do_not_fit_a_schema_are_told(record: bytes, told: str) -> None:
    inner = {"type": "record", "name": "B", "fields": [{"name": "c", "type": "boolean"}]}
    fields = [{"name": "a", "type": "long"}, {"name": "b", "type": ["null", inner], "default": None}]
    schema = Schema("avro", json.dumps({"type": "record", "name": "A", "fields": fields}))
    with pytest.raises(SakerError, match=told):
        list(in_format([(None, record)], schema, 1))


@pytest.mark.parametrize("text", ["no", "[]", '"string"', '{"type":"record"}'])
def test_what_is_no_schema_of_a_record_is_told(text: str) -> None:
    with pytest.raises(TableError, match="Avro schema"):
        avro_rows.AvroRows(text)


def test_a_column_that_avro_cannot_name_is_told() -> None:
    with pytest.raises(TableError, match="column 'a b'"):
        avro_rows.schema_of(pa.schema([("a b", pa.int64())]), "T")


def test_a_path_identifies_records(tmp_path: Path) -> None:
    lines = [
        orjson.dumps({"p": {"id": number, "x": number % 7, "late": number % 3}, "t": number, "y": number % 2})
        for number in range(300)
    ]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(lines))
    settings = Settings(label="y", time="t", id_field="p.id", rounds=2)
    table, records, _ = labelled_table(file, 0, 0, settings, (None, None))
    contract: Contract = train(table, settings, sent=records).contract
    assert (contract.id_field, contract.id_path) == ("id", "p.id")
    assert list(Decoder(contract).decode(lines[:2]).ids) == [b"0", b"1"]


# ---- replays as Protobuf ----

PROTO = """syntax = "proto3";
package bank;
import "google/protobuf/timestamp.proto";
message Other { string x = 1; }
message Payment {
  string id = 1; google.protobuf.Timestamp at = 2; bool fraud = 3; repeated string tags = 4; Card card = 5;
  message Card { double amount = 1; Network network = 2; optional double limit = 3; optional int32 age = 4; bool online = 5; }
}
enum Network { VISA = 0; AMEX = 1; OTHER = 2; }
"""


@pytest.mark.parametrize("as_text", [True, False])
def test_rows_as_protobuf_are_what_a_class_of_protoc_reads(
    as_text: bool, rows: list[dict[str, Any]], by_avro: Trained, tmp_path: Path
) -> None:
    schema = Schema("protobuf", PROTO, message="bank.Payment")
    if not as_text:
        schema = Schema("protobuf", "", descriptors=compiled(PROTO, tmp_path).SerializeToString(), message="bank.Payment")
    lines = [record_files.json_of(row) for row in rows[:300]]
    written = [value or b"" for _, value in in_format([(None, line) for line in lines], schema, 7)]
    payment = message_class(PROTO, "bank.Payment", tmp_path)
    for row, value in zip(rows[:300], written, strict=True):
        assert value.startswith(b"\0\0\0\0\7\2\2")  # the second message of its file
        message, card = payment.FromString(value[7:]), row["card"]
        assert (message.id, message.at.ToDatetime(UTC), message.fraud) == (row["id"], row["at"], row["fraud"])
        assert (message.card.amount, message.card.limit) == (float(card["amount"]), card["limit"] or 0.0)
        assert message.card.HasField("age") is (card["age"] is not None)
    decoded = Decoder(by_avro.contract, of=Format("protobuf", schema=schema)).decode([value[7:] for value in written])
    np.testing.assert_array_equal(decoded.matrix, Decoder(by_avro.contract).decode(lines).matrix)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (Schema("protobuf", "no"), "Protobuf schema cannot be used"),
        (Schema("protobuf", PROTO, message="bank.Absent"), "it has no message 'bank.Absent'; it has bank.Other, bank.Payment"),
        (Schema("protobuf", 'syntax = "proto3"; message A { Absent x = 1; }'), "Protobuf schema cannot be used"),
        (Schema("protobuf", "", descriptors=b"no"), "Protobuf schema cannot be used"),
        (Schema("protobuf", PROTO), "row 1: it does not fit the Protobuf schema"),
    ],
)
def test_protobuf_schemas_and_rows_that_do_not_fit_are_told(schema: Schema, told: str) -> None:
    with pytest.raises(SakerError, match=told):
        list(in_format([(None, b'{"x":{"y":1}}')], schema, None))
