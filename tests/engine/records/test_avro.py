"""Avro: the reference against fastavro, the native programs against the reference, and what hostile schemas and records do."""

from __future__ import annotations

import io
import json
import math
import struct
import time
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.errors import SakerError
from saker.engine.records.avro import parse_schema, read_record
from saker.engine.records.content import Object, SchemaError
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Format, Schema, UnknownSchema
from tests.engine.records.avro_cases import Case, long, sized
from tests.engine.records.decoders import NATIVE
from tests.support.examples import examples

SEEDS = range(examples(2000))


def shown(value: Any) -> Any:
    """A value of the reference reader or of fastavro, alike: what holds nothing but nulls is null."""
    if isinstance(value, Object):
        value = dict(value)
    if isinstance(value, dict):
        fields = {name: shown(inner) for name, inner in value.items()}
        return fields if any(inner is not None for inner in fields.values()) else None
    if isinstance(value, list):
        items = [shown(inner) for inner in value]
        return items if any(inner is not None for inner in items) else None
    if value == b"":
        return None
    is_number = type(value) is int or (isinstance(value, str) and type(value) is not str)
    return Decimal(value) if is_number else value


def without(logical: Any, schema: Any) -> Any:
    """The schema without logical types other than `logical`: fastavro would make dates of numbers that are none."""
    if isinstance(schema, list):
        return [without(logical, one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: without(logical, value) for key, value in schema.items()}
    return kept if kept.get("logicalType") == logical else {key: value for key, value in kept.items() if key != "logicalType"}


def test_the_reference_reads_what_fastavro_reads() -> None:
    compared = 0
    for seed in SEEDS:
        case = Case(seed)
        text = without(None, case.schema)
        ours, theirs = parse_schema(json.dumps(text)), fastavro.parse_schema(text)
        for _ in range(4):
            data = case.record()
            expected = fastavro.schemaless_reader(io.BytesIO(data), theirs, None)
            assert repr(shown(read_record(data, ours))) == repr(shown(expected)), (seed, data)
            compared += 1
    assert compared == 4 * len(SEEDS)


@pytest.mark.parametrize("variant", NATIVE)
def test_a_program_gives_the_bits_and_rejections_of_the_reference(variant: str) -> None:
    accepted = 0
    for seed in SEEDS:
        case = Case(seed)
        values = [case.damaged() if case.random.random() < 0.4 else case.record() for _ in range(8)]
        expected = Decoder(case.contract, "off", case.format).decode(values)
        decoder = Decoder(case.contract, "auto", case.format, variant=variant)
        for _ in range(2):
            found = decoder.decode(values)
            assert found.matrix.tobytes() == expected.matrix.tobytes(), seed
            assert (list(found.ids), found.rejections) == (list(expected.ids), expected.rejections), seed
        accepted += len(expected.ids)
    assert accepted > 3 * len(SEEDS)


CARD = {
    "type": "record", "name": "Card", "namespace": "bank", "fields": [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "network", "type": {"type": "enum", "name": "Network", "symbols": ["VISA", "AMEX"]}},
        {"name": "limit", "type": ["null", "double"]},
        {"name": "country", "type": ["string", "null"]},
    ],
}  # fmt: skip
TOP: dict[str, Any] = {
    "type": "record", "name": "Payment", "namespace": "bank", "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "card", "type": ["null", CARD]},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "items", "type": {"type": "array", "items": ["null", "int"]}},
        {"name": "online", "type": "boolean"},
    ],
}  # fmt: skip
PAYMENT = Contract(
    (
        Feature("amount", path="card.amount", required=True),
        Feature("network", "category", path="card.network", vocabulary=("AMEX", "VISA")),
        Feature("limit", path="card.limit"),
        Feature("country", "category", path="card.country", vocabulary=("DE", "FR")),
        Feature("hour", "derived", path="at", derivation="hour_of_day"),
        Feature("seconds", "derived", path="at", derivation="seconds"),
        Feature("at", path="at"),
        Feature("channel", "category", path="tags.channel", vocabulary=("web",)),
        Feature("second", path="items[1]"),
        Feature("online"),
    ),
    id_field="id",
)
GOOD = {
    "id": "t\"é", "at": 1_796_075_999_500,
    "card": {"amount": Decimal("-12.50"), "network": "AMEX", "limit": 5.5, "country": "FR"},
    "tags": {"channel": "web", "other": "x"}, "items": [1, 7], "online": True,
}  # fmt: skip


def written(record: dict[str, Any], schema: Any = TOP) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


def decoder_of(schema: Any, kernels: str, contract: Contract = PAYMENT) -> Decoder:
    return Decoder(contract, kernels, Format("avro", schema=Schema("avro", json.dumps(schema))))


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_logical_types_enums_and_nullable_branches(kernels: str) -> None:
    missing = GOOD | {"card": GOOD["card"] | {"limit": None, "country": None}, "tags": {}, "items": [], "online": False}  # type: ignore[operator]
    decoded = decoder_of(TOP, kernels).decode([written(GOOD), written(missing)])
    assert decoded.rejections == []
    assert list(decoded.ids) == [b'"t\\"\xc3\xa9"'] * 2
    nan, at = math.nan, 1_796_075_999_500
    rows = [[-12.5, 0, 5.5, 1, 21, at / 1000, at, 0, 7, 1], [-12.5, 0, nan, nan, 21, at / 1000, at, nan, nan, 0]]
    np.testing.assert_array_equal(decoded.matrix, np.array(rows, np.float32))
    assert decoded.handed_over == (0 if kernels == "auto" else 2)


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (b"", "empty_record", None),
        (written(GOOD)[:-1], "invalid_avro", None),
        (written(GOOD) + b"\0", "invalid_avro", None),
        (b"\xff" * 20, "invalid_avro", None),
        (written(GOOD | {"card": None}), "missing_field", "card.amount"),
        (written(GOOD | {"id": ""}), "missing_field", "id"),
        (written(GOOD).replace(b"FR", b"\xff\xfe"), "wrong_type", "card.country"),
        (written(GOOD).replace("é".encode(), b"\xc3\x28"), "wrong_type", "id"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(kernels: str, value: bytes, reason: str, field: str | None) -> None:
    decoded = decoder_of(TOP, kernels).decode([written(GOOD), value, written(GOOD)])
    assert [(r.index, r.reason, r.field) for r in decoded.rejections] == [(1, reason, field)]
    assert decoded.indices.tolist() == [0, 2]


def changed(path: str, new: Any) -> dict[str, Any]:
    """TOP with another type at a path, or without that field (None)."""
    schema: dict[str, Any] = json.loads(json.dumps(TOP))
    *inside, last = path.split(".")
    fields = schema["fields"]
    for name in inside:
        fields = next(one for one in fields if one["name"] == name)["type"][1]["fields"]
    at = next(index for index, one in enumerate(fields) if one["name"] == last)
    if new is None:
        del fields[at]
    else:
        fields[at]["type"] = new
    return schema


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        (changed("card.amount", None), "card.amount", "is required and not in the schema"),
        (changed("id", None), "id", "is required and not in the schema"),
        (changed("card", "string"), "card", "is string in the schema, expected a record"),
        (changed("card", "null"), "card.amount", "is required"),
        (changed("card.limit", "bytes"), "card.limit", "is bytes in the schema, expected a number"),
        (changed("card.country", "double"), "card.country", "is double in the schema, expected a category"),
        (changed("items", "int"), "items", "is int in the schema, expected an array"),
        (changed("at", {"type": "enum", "name": "E", "symbols": ["A"]}), "at", "is enum in the schema, expected a time"),
        ("string", "the record", "is string in the schema, expected a record"),
        ({"type": "record", "name": "X"}, None, "cannot be read: expected fields with a name and a type"),
    ],
)
def test_a_schema_that_cannot_fit_rejects_by_name(kernels: str, schema: Any, field: str | None, message: str) -> None:
    decoder = decoder_of(schema, kernels)
    for _ in range(2):
        (rejection,) = decoder.decode([b"any bytes"]).rejections
        assert (rejection.reason, rejection.field) == ("schema_mismatch", field)
        assert message in rejection.message


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_an_optional_field_that_is_gone_is_missing(kernels: str) -> None:
    schema = changed("card.limit", None)
    record = GOOD | {"card": {name: value for name, value in GOOD["card"].items() if name != "limit"}}  # type: ignore[attr-defined]
    decoded = decoder_of(schema, kernels).decode([written(record, schema)])
    assert math.isnan(decoded.matrix[0, 2])
    assert decoded.matrix[0, 0] == -12.5


class Registry:
    def __init__(self, schemas: dict[int, Schema]) -> None:
        self.schemas, self.asked = schemas, list[int]()

    def get(self, number: int) -> Schema:
        self.asked.append(number)
        if number == 99:
            raise SakerError("the registry does not answer")
        if number not in self.schemas:
            raise UnknownSchema(str(number))
        return self.schemas[number]

    def number_of(self, _guid: bytes) -> None: ...


def framed(number: int, data: bytes) -> bytes:
    return struct.pack(">bI", 0, number) + data


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_batch_may_hold_records_of_many_schemas(kernels: str) -> None:
    first = json.dumps(TOP)
    other = changed("card.limit", ["double", "null"])
    registry = Registry({7: Schema("avro", first), 2**31 + 5: Schema("avro", json.dumps(other)), 8: Schema("json", "{}")})
    decoder = Decoder(PAYMENT, kernels, Format("avro", schemas=registry))
    bodies = [
        framed(7, written(GOOD)),
        framed(2**31 + 5, written(GOOD, other)),
        framed(3, b"x"),
        b"\1abcde",
        framed(8, b"x"),
        b"\0\0",
    ]
    for _ in range(3):
        decoded = decoder.decode(bodies)
        assert decoded.indices.tolist() == [0, 1]
        np.testing.assert_array_equal(decoded.matrix[0], decoded.matrix[1])
        assert [(r.index, r.reason) for r in decoded.rejections] == [
            (2, "unknown_schema"), (3, "no_schema_id"), (4, "schema_mismatch"), (5, "no_schema_id"),
        ]  # fmt: skip
    assert sorted(registry.asked) == [3, 7, 8, 2**31 + 5]
    assert list(decoder.unknown_schemas([framed(99, b""), framed(7, b""), framed(98, b"x")])) == [(0, 99), (2, 98)]
    with pytest.raises(SakerError, match="does not answer"):
        decoder.decode([framed(99, written(GOOD))])


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_json_with_the_id_of_a_schema(kernels: str) -> None:
    closed = {"type": "object", "properties": {"id": {}, "b": {}}, "additionalProperties": False}
    registry = Registry(
        {1: Schema("json", '{"type":"object"}'), 2: Schema("json", json.dumps(closed)), 3: Schema("avro", '"int"')}
    )
    contract = Contract((Feature("a", required=True),), id_field="id")
    decoder = Decoder(contract, kernels, Format("json", schemas=registry))
    record = b'{"id": "x\\u0061", "a":1}'
    decoded = decoder.decode(
        [framed(1, record), framed(2, record), framed(3, record), record, framed(1, b""), framed(1, b'{"id":7,"a":2}')]
    )
    assert [(r.index, r.reason, r.field) for r in decoded.rejections] == [
        (1, "schema_mismatch", "a"), (2, "schema_mismatch", None), (3, "no_schema_id", None), (4, "invalid_json", None),
    ]  # fmt: skip
    assert list(decoded.ids) == [b'"xa"', b"7"]


RECURSIVE = {
    "type": "record", "name": "Node", "fields": [
        {"name": "id", "type": "int"}, {"name": "next", "type": ["null", "Node"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_type_that_contains_itself(kernels: str) -> None:
    contract = Contract((Feature("third", path="next.next.id"),), id_field="id")
    decoder = decoder_of(RECURSIVE, kernels, contract)

    def chain(length: int) -> bytes:
        return b"".join(long(number) + long(number < length) for number in range(1, length + 1))

    decoded = decoder.decode([chain(1), chain(3), chain(63), chain(64), chain(65), chain(100_000)])
    assert decoded.indices.tolist() == [0, 1, 2, 3]
    assert decoded.matrix[1:, 0].tolist() == [3, 3, 3]
    assert [r.reason for r in decoded.rejections] == ["too_deep", "too_deep"]


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_what_has_no_bytes_costs_no_time(kernels: str) -> None:
    """Arrays that claim to hold 2**62 nulls, and records that double in each of 60 levels."""
    inner: Any = {"type": "record", "name": "R0", "fields": [{"name": "x", "type": "null"}]}
    for level in range(1, 60):
        inner = {
            "type": "record",
            "name": f"R{level}",
            "fields": [{"name": "a", "type": inner}, {"name": "b", "type": f"R{level - 1}"}],
        }
    schema = {
        "type": "record", "name": "T", "fields": [
            {"name": "id", "type": "int"},
            {"name": "nulls", "type": {"type": "array", "items": "null"}},
            {"name": "r", "type": inner},
            {"name": "many", "type": {"type": "array", "items": "R3"}},
        ],
    }  # fmt: skip
    contract = Contract(
        (Feature("n", path="nulls[5]"), Feature("x", path="r.a.b.x"), Feature("y", path="many[0].a.x")), id_field="id"
    )
    started = time.monotonic()
    few, many = long(3), long(2**62)
    decoded = decoder_of(schema, kernels, contract).decode(
        [b"\2" + few + b"\0" + few + b"\0", b"\2" + many + b"\0" + b"\0", b"\2\0" + many + b"\0"]
    )
    assert decoded.rejections == []
    assert np.isnan(decoded.matrix).all()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a schema in JSON"),
        ('"Unknown"', "type 'Unknown' is not defined"),
        ("[]", "an empty one"),
        ('["int", ["long"]]', "one with a union"),
        ('{"type":"array"}', "an array has no items"),
        ('{"type":"map"}', "a map has no values"),
        ('{"type":"enum","name":"E"}', "no list of symbols"),
        ('{"type":"fixed","name":"F","size":-1}', "no size"),
        ('{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}', "field 'a' twice"),
        ('{"type":"record","fields":[]}', "a record with a name"),
        ("[" * 100_000, "JSON|nests too deeply"),
        (
            json.dumps({"type": "array", "items": "int"}).replace(
                '"int"', '{"type":"array","items":' * 300 + '"int"' + "}" * 300
            ),
            "nest",
        ),
    ],
)
def test_a_schema_that_is_none_is_named(text: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        parse_schema(text)


def test_types_of_other_schemas_are_taken_from_the_references() -> None:
    money = '{"type":"record","name":"Money","namespace":"bank","fields":[{"name":"cents","type":"long"}]}'
    fields = [{"name": "m", "type": "Money"}, {"name": "n", "type": "bank.Money"}]
    text = json.dumps({"type": "record", "name": "T", "namespace": "bank", "fields": fields})
    assert shown(read_record(long(5) + long(-6), parse_schema(text, (money,)))) == {"m": {"cents": 5}, "n": {"cents": -6}}


def test_a_string_with_digits_ends_where_it_ends() -> None:
    """What follows it in the record may be digits, too."""
    schema = {"type": "record", "name": "T", "fields": [{"name": n, "type": "string"} for n in ("a", "b", "id")]}
    contract = Contract((Feature("a"), Feature("b")), id_field="id")
    decoded = decoder_of(schema, "auto", contract).decode([sized(b"1") + sized(b"2" * 25) + sized(b"3")])
    assert decoded.matrix[0].tolist() == [1.0, float(np.float32(float("2" * 25)))]
