"""What a record has for velocity features: every decoder finds the same."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from saker.engine import kernels
from saker.engine.contract import Contract, Feature
from saker.engine.kernels.identity import identify, identity_bytes
from saker.engine.records.content import Number
from saker.engine.records.decode import Decoder
from saker.engine.records.envelope import envelope_of
from saker.engine.records.formats import JSON, Format, FormatReader, Schema
from saker.engine.records.reference_decoder import Reference
from saker.engine.records.rejection import Rejection
from saker.engine.velocity import NO_TIME, EventTime, Velocity
from tests.engine.history.streams import Untouched
from tests.support.protoc import message_class

KEY = Untouched.hash_key
#: The key is also a category, the amount a number, and the time a derived feature.
CONTRACT = Contract(
    (
        Feature("amount"),
        Feature("card", "category", vocabulary=("a", "7")),
        Feature("hour", "derived", source="time", derivation="hour_of_day"),
        Feature("n", "velocity", velocity=Velocity(("card", "device.id"), "count", 60_000)),
        Feature("sum", "velocity", velocity=Velocity(("card",), "sum", 60_000, "amount")),
        Feature("fees", "velocity", velocity=Velocity(("card",), "sum", 60_000, "fee")),
        Feature("shops", "velocity", velocity=Velocity(("card",), "distinct", 60_000, "shop")),
    ),
    id_field="id",
    event_time=EventTime("time", "s"),
)
NATIVE, _ = kernels.native("auto")
assert NATIVE is not None


def both(record: bytes, of: Format, variant: str, contract: Contract = CONTRACT) -> None:
    """The native decoder and the reference: the same rejection, or the same row and inputs."""
    assert NATIVE is not None
    decoded = Decoder(contract, of=of, variant=variant, history=Untouched()).decode([record])
    inside = contract if of.envelope is None else of.envelope.within(contract)
    reference = Reference(inside, FormatReader(inside, of, NATIVE.too_deep).parse, identify(NATIVE, KEY))
    row, inputs = np.empty(len(contract.features), np.float32), np.empty(decoded.inputs.shape[1], np.int64)
    expected = reference.decode(0, record, row, inputs)
    if isinstance(expected, Rejection):
        assert decoded.rejections == [expected]
        return
    assert not decoded.rejections
    assert np.array_equal(decoded.matrix[0], row, equal_nan=True)
    assert decoded.inputs[0].tobytes() == inputs.tobytes(), (decoded.inputs[0], inputs)


values = st.one_of(
    st.none(), st.booleans(), st.text(max_size=20), st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "7", "7.0", "2024-02-29T12:00:00.0005Z", 2**53 + 1, 2**64 - 1, 2**64, 1e18, 7.0, -0.0, 1e39, [], {}]),
)  # fmt: skip
numbers = st.sampled_from(
    ["7", "7.0", "7.00", "70e-1", "-0", "-0.0", "0e5", "18446744073709551615", "18446744073709551616", "18446744073709551615.0",
     "1e19", "1E400", "9007199254740993", "9007199254740993.0", "0.1", "1234567890123456789012", "-1", "1."],
)  # fmt: skip


@pytest.mark.parametrize("variant", NATIVE.variants())
@settings(deadline=None, max_examples=400)
@given(st.fixed_dictionaries(dict.fromkeys(("id", "time", "card", "amount", "fee", "shop", "device"), values)), values)
def test_json(variant: str, record: dict[str, Any], device: Any) -> None:
    if record["device"] is not None:
        record["device"] = {"id": device}
    both(json.dumps(record).encode(), JSON, variant)


@pytest.mark.parametrize("variant", NATIVE.variants())
@settings(deadline=None, max_examples=200)
@given(numbers, numbers)
def test_numbers_as_they_are_written(variant: str, card: str, shop: str) -> None:
    both(f'{{"id": 1, "card": {card}, "shop": {shop}, "time": {card}}}'.encode(), JSON, variant)


TYPES = ["null", "boolean", "int", "long", "float", "double", "string"]
AVRO = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "id", "type": "long"},
        *({"name": name, "type": TYPES} for name in ("amount", "fee", "shop")),
        {"name": "card", "type": ["null", {"type": "enum", "name": "E", "symbols": ["a", "b"]}, "string", "long"]},
        {"name": "time", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "device", "type": ["null", {"type": "record", "name": "D", "fields": [{"name": "id", "type": TYPES}]}]},
    ],
}
avro_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "7", 7.0]),
)


@pytest.mark.parametrize("variant", NATIVE.variants())
@settings(deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries(dict.fromkeys(("amount", "fee", "shop"), avro_values)),
    st.one_of(st.none(), st.just("a"), st.text(max_size=9), st.integers(-(2**63), 2**63 - 1)),
    st.one_of(st.none(), st.integers(-(2**60), 2**60)),
    st.one_of(st.none(), avro_values.map(lambda value: {"id": value})),
)
def test_avro(variant: str, record: dict[str, Any], card: Any, time: int | None, device: Any) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(AVRO), {"id": 1, **record, "card": card, "time": time, "device": device}
    )
    both(out.getvalue(), Format("avro", schema=Schema("avro", json.dumps(AVRO))), variant)


PROTO = """
syntax = "proto3";
enum E { A = 0; B = 1; }
message Device { oneof id { string text = 1; sint64 number = 2; } }
message Payment {
  int64 id = 1;
  optional double amount = 2;
  optional float fee = 3;
  optional fixed64 shop = 4;
  oneof key { string card = 5; }
  optional int64 time = 6;
  Device device = 7;
  optional E kind = 8;
  optional bool online = 9;
}
"""
PROTO_CONTRACT = replace(
    CONTRACT,
    features=(
        Feature("amount"),
        Feature("n", "velocity", velocity=Velocity(("card", "device.number"), "count", 60_000)),
        Feature("words", "velocity", velocity=Velocity(("device.text", "kind"), "count", 60_000)),
        Feature("sum", "velocity", velocity=Velocity(("online",), "sum", 60_000, "amount")),
        Feature("fees", "velocity", velocity=Velocity(("card",), "sum", 60_000, "fee")),
        Feature("shops", "velocity", velocity=Velocity(("card",), "distinct", 60_000, "shop")),
    ),
)


@pytest.fixture(scope="module")
def payment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The class of the message, made by protoc."""
    return message_class(PROTO, "Payment", tmp_path_factory.mktemp("proto"))


@pytest.mark.parametrize("variant", NATIVE.variants())
@settings(deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "amount": st.floats(),
            "fee": st.floats(width=32),
            "shop": st.integers(0, 2**64 - 1),
            "card": st.text(max_size=9),
            "time": st.integers(-(2**60), 2**60),
            "kind": st.sampled_from([0, 1, 7]),
            "online": st.booleans(),
            "device": st.one_of(
                st.just({}),
                st.fixed_dictionaries({"number": st.integers(-(2**63), 2**63 - 1)}),
                st.fixed_dictionaries({"text": st.text(max_size=9)}),
            ),
        },
    )
)
def test_protobuf(variant: str, payment: Any, record: dict[str, Any]) -> None:
    data = payment(id=1, **record).SerializeToString()
    of = Format("protobuf", schema=Schema("protobuf", PROTO, message="Payment"))
    both(data, of, variant, PROTO_CONTRACT)


def test_an_envelope_moves_all_paths() -> None:
    of = replace(JSON, envelope=envelope_of("debezium"))
    record = {"id": 1, "time": 5, "card": "a", "amount": 1.5, "fee": 2, "shop": True, "device": {"id": 7}}
    wrapped = Decoder(CONTRACT, of=of, history=Untouched()).decode([json.dumps({"after": record}).encode()])
    plain = Decoder(CONTRACT, history=Untouched()).decode([json.dumps(record).encode()])
    assert wrapped.inputs.tobytes() == plain.inputs.tobytes()
    assert plain.inputs[0, 0] == 5000


def found(**fields: Any) -> NDArray[np.int64]:
    decoded = Decoder(CONTRACT, history=Untouched()).decode([json.dumps({"id": 1, **fields}).encode()])
    first: NDArray[np.int64] = decoded.inputs[0]
    return first.copy()


def test_what_is_missing_has_its_own_words() -> None:
    words = found()
    assert words[0] == NO_TIME
    assert np.isnan(words[1:3].view(np.float64)).all()
    assert not words[3:].any()


@pytest.mark.parametrize(
    ("value", "same"),
    [(7, 7.0), (2**63, float(2**63)), (0, -0.0), (True, True), (7.5, 7.50)],
)
def test_equal_values_are_one_key(value: Any, same: Any) -> None:
    assert found(card=value).tobytes() == found(card=same).tobytes()


@pytest.mark.parametrize(("value", "other"), [(7, "7"), (True, 1), (2**53, 2**53 + 1), (1, -1), ("a", "A"), ("é", "e\u0301")])
def test_different_values_are_different_keys(value: Any, other: Any) -> None:
    assert found(card=value).tobytes() != found(card=other).tobytes()


@pytest.mark.parametrize(
    ("time", "milliseconds"),
    [(1.001, 1001), ("1970-01-01T00:00:01.001Z", 1001), (0.0005, 0), (0.0015, 2), (-1, -1000), ("1e300", NO_TIME)],
)
def test_times_are_rounded_to_milliseconds(time: Any, milliseconds: int) -> None:
    if time == "1e300":
        time = 1e30
    assert found(time=time)[0] == milliseconds


def test_the_hash_is_siphash() -> None:
    """Vectors of the authors, siphash128 in vectors.h: key 0..15, message of n bytes 0, 1, 2, ..."""
    assert NATIVE is not None
    vectors = {
        0: "a3817f04ba25a8e66df67214c7550293",
        1: "da87c1d86b99af44347659119b22fc45",
        15: "5493e99933b0a8117e08ec0f97cfc3d9",
    }
    for length, expected in vectors.items():
        # The type of the value is mixed into the key; type 0 leaves it as it is.
        assert NATIVE.identity(KEY, b"\0" + bytes(range(length))).hex() == expected


def test_bytes_of_identities() -> None:
    assert identity_bytes("7", is_number=False) == b"t7"
    assert identity_bytes(Number("-7.00"), is_number=True) == b"n-" + (7).to_bytes(8, "little")
    assert identity_bytes(Number("1e2"), is_number=True) == b"n+" + (100).to_bytes(8, "little")
