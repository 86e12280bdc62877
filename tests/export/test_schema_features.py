"""Features files from schemas: one form of fields for Avro, Protobuf and JSON schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.errors import SakerError
from saker.engine.records.content import SchemaError
from saker.engine.records.envelope import Envelope
from saker.engine.records.formats import Schema
from saker.engine.records.schema_fields import schema_fields
from saker.export.features_file import read_features, write_features
from saker.export.schema_features import features_of_schema, with_paths
from tests.support.command_line import main_here
from tests.support.protoc import compiled

CARD: dict[str, Any] = {
    "type": "record", "name": "Card", "fields": [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "network", "type": {"type": "enum", "name": "Network", "symbols": ["VISA", "AMEX"]}},
        {"name": "limit", "type": ["double", "null"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "parent", "type": ["null", "Card"]},
    ],
}  # fmt: skip
AVRO = json.dumps({
    "type": "record", "name": "Payment", "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "online", "type": "boolean"},
        {"name": "card", "type": ["null", CARD]},
        {"name": "odd.name", "type": ["string", "long"]},
    ],
})  # fmt: skip
PROTO = """syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
package bank;
message Other { string id = 1; }
message Payment {
  string payment_id = 1; google.protobuf.Timestamp at = 2; bool online = 3; Card card = 4;
  message Card {
    optional double amount = 1; Network network = 2; google.protobuf.DoubleValue limit = 3; repeated string tags = 4;
    Card parent = 5; map<string, string> more = 6; bytes raw = 7;
  }
}
enum Network { VISA = 0; AMEX = 1; }
"""
JSON_SCHEMA = json.dumps({
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["payment_id", "at", "card"],
    "properties": {
        "payment_id": {"type": "string"}, "at": {"type": "string", "format": "date-time"}, "online": {"type": "boolean"},
        "card": {"$ref": "#/$defs/Card"},
    },
    "$defs": {"Card": {"type": "object", "required": ["amount", "limit"], "properties": {
        "amount": {"type": "number"}, "network": {"enum": ["VISA", "AMEX"]}, "limit": {"type": ["number", "null"]},
        "tags": {"type": "array"}, "parent": {"$ref": "#/$defs/Card"},
    }}},
})  # fmt: skip


def told(schema: Schema, most: int = 20) -> list[tuple[str, str, bool, tuple[str, ...]]]:
    return [(one.label, one.kind, one.is_optional, one.values) for one in schema_fields(schema)[:most]]


def test_fields_of_avro() -> None:
    assert told(Schema("avro", AVRO)) == [
        ("payment_id", "category", False, ()),
        ("at", "time", False, ()),
        ("online", "number", False, ()),
        ("card.amount", "number", True, ()),
        ("card.network", "category", True, ("VISA", "AMEX")),
        ("card.limit", "number", True, ()),
        ("card.tags", "other", True, ()),
        (r"odd\.name", "other", False, ()),
    ]


@pytest.mark.parametrize("as_text", [True, False])
def test_fields_of_protobuf(as_text: bool, tmp_path: Path) -> None:
    descriptors = b"" if as_text else compiled(PROTO, tmp_path).SerializeToString()
    schema = Schema("protobuf", PROTO if as_text else "", descriptors=descriptors, message="bank.Payment")
    assert told(schema) == [
        ("payment_id", "category", False, ()),
        ("at", "time", True, ()),
        ("online", "number", False, ()),
        ("card.amount", "number", True, ()),
        ("card.network", "category", True, ("VISA", "AMEX")),
        ("card.limit", "number", True, ()),
        ("card.tags", "other", True, ()),
        ("card.more", "other", True, ()),
        ("card.raw", "other", True, ()),
    ]


def test_fields_of_a_json_schema() -> None:
    assert told(Schema("json", JSON_SCHEMA), 7) == [
        ("payment_id", "category", False, ()),
        ("at", "time", False, ()),
        ("online", "number", True, ()),
        ("card.amount", "number", False, ()),
        ("card.network", "category", True, ("VISA", "AMEX")),
        ("card.limit", "number", True, ()),
        ("card.tags", "other", True, ()),
    ]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (Schema("avro", '"string"'), "no fields"),
        (Schema("avro", "no"), "schema in JSON"),
        (Schema("avro", '{"type":"record","name":"A","fields":[]}'), "no fields"),
        (Schema("protobuf", 'syntax = "proto3";'), "not defined"),
        (Schema("json", "no"), "JSON schema"),
        (Schema("json", "true"), "no fields"),
        (Schema("xml", ""), "got one of xml"),
    ],
)
def test_what_has_no_fields_is_told(schema: Schema, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        schema_fields(schema)


def test_a_features_file_of_every_field(tmp_path: Path) -> None:
    contract, notes = features_of_schema(schema_fields(Schema("avro", AVRO)))
    file = tmp_path / "features.toml"
    file.write_text(write_features(contract, notes))
    assert read_features(file) == contract
    assert contract.id_field == "payment_id"
    assert [(one.name, one.kind, one.path, one.required, one.vocabulary) for one in contract.features] == [
        ("at.hour_of_day", "derived", "at", False, ()),
        ("at.day_of_week", "derived", "at", False, ()),
        ("online", "number", None, True, ()),
        ("card.amount", "number", "card.amount", False, ()),
        ("card.network", "category", "card.network", False, ("VISA", "AMEX")),
        ("card.limit", "number", "card.limit", False, ()),
    ]
    assert notes[-2:] == ["Left out: card.tags (array).", r"Left out: odd\.name (union of string, long)."]


def test_the_features_of_a_model_get_the_paths_of_the_fields_with_their_names() -> None:
    model = Contract((
        Feature("Amount"), Feature("card_limit"), Feature("network", "category", vocabulary=("VISA",)), Feature("online"),
        Feature("hour", "derived", source="at", derivation="hour_of_day"), Feature("age"),
    ))  # fmt: skip
    contract, notes = with_paths(model, schema_fields(Schema("avro", AVRO)))
    assert [one.path for one in contract.features] == ["card.amount", "card.limit", "card.network", None, "at", None]
    assert notes[0] == "age: no field has this name."
    assert contract.id_field == "payment_id"


def test_two_fields_of_one_name_are_told() -> None:
    inner = {"properties": {"x": {"type": "number"}}}
    two = json.dumps({"properties": {"id": {"type": "string"}, "a": inner, "b": inner}})
    _, notes = with_paths(Contract((Feature("x"),), id_field="id"), schema_fields(Schema("json", two)))
    assert notes[0] == "x: several fields have this name: a.x, b.x."


def test_only_the_row_of_an_envelope() -> None:
    fields = schema_fields(Schema("avro", AVRO))
    assert [one.label for one in Envelope(("card",)).inside(fields)] == ["amount", "network", "limit", "tags"]
    with pytest.raises(SakerError, match="no fields below after"):
        Envelope(("after",)).inside(fields)


@pytest.mark.parametrize(("name", "text"), [("a.avsc", AVRO), ("a.proto", PROTO), ("a.json", JSON_SCHEMA)])
def test_describe_prints_it(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    message = ["--message", "bank.Payment"] if name == "a.proto" else []
    done = main_here("models", "describe", "--schema", name, *message, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "features.toml").write_text(done.stdout)
    assert "card.amount" in [one.name for one in read_features(tmp_path / "features.toml").features]
    wrong = main_here("models", "describe", "--schema", "absent.avsc", folder=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
