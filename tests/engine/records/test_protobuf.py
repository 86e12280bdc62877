"""Protocol Buffers: sources against protoc, the reference against upb on the whole schema, tables against the reference."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

from saker.engine.contract import Contract, Feature
from saker.engine.records.content import SchemaError
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Format, Schema
from saker.engine.records.proto_messages import Messages
from saker.engine.records.proto_text import parse_proto
from tests.engine.records.decoders import NATIVE
from tests.engine.records.protobuf_cases import ProtoCase, sized, tag, varint
from tests.support.examples import examples
from tests.support.protoc import WELL_KNOWN, compiled


def shape(files: list[FileDescriptorProto]) -> Any:
    """Every message with its fields, of which the contract may read each."""
    messages = Messages(files)
    return {
        path: [
            (one.name, one.number, one.kind, getattr(one.type, "name", ""), getattr(one.type, "names", None),
             one.is_repeated, one.has_presence, one.oneof, one.is_utf8)
            for one in messages.message(name).fields
        ]
        for path, name in messages.paths.items()
    }  # fmt: skip


def test_sources_mean_what_protoc_says(tmp_path: Path) -> None:
    for seed in range(examples(60)):
        text = ProtoCase(seed).text + '\nimport "google/protobuf/wrappers.proto";'
        assert shape([parse_proto(text)]) == shape(list(compiled(text, tmp_path).file)), seed


@pytest.mark.parametrize("file", sorted(WELL_KNOWN.rglob("*.proto")), ids=lambda path: str(path.name))
def test_sources_that_google_ships_are_read(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    if 'edition = "' in text:
        with pytest.raises(SchemaError, match="expected proto2 or proto3"):
            parse_proto(text)
        return
    found, expected = parse_proto(text), list(compiled(text, tmp_path).file)
    assert shape([*expected[:-1], found]) == shape(expected)


def test_what_a_source_may_hold(tmp_path: Path) -> None:
    text = """
    syntax = 'proto2'; /* a comment; with { braces */ package a.b;
    import public "google/protobuf/descriptor.proto"; option java_package = "x\\"y";
    extend google.protobuf.FieldOptions { optional Opts mine = 50001; }
    message Opts { optional int32 a = 1; repeated string b = 2; }
    message message { option deprecated = false; reserved 2, 9 to 11; reserved "foo"; extensions 100 to max;
      required string optional = 1 [default = "a;b]", (mine) = { a: 1 b: ["x", "}"] }];
      optional group_ group_field = 0x10; repeated sint64 packed = 017 [packed = true];
      optional .a.b.message.Inner.Deep d = 3; optional Inner.Deep e = 4; map<string, Inner> map = 5;
      optional google.protobuf.FieldOptions f = 6;
      message Inner { message Deep { optional Inner up = 1; optional message top = 2; } optional Kind k = 1; }
      enum Kind { option allow_alias = true; reserved 7; A = 0; B = -1; C = 0 [deprecated = true]; }
      oneof pick { string option = 20; int32 reserved = 21; }
    } ;
    message group_ {}
    service S { rpc Call(message) returns (stream message) { option deprecated = true; } }
    """
    assert shape([parse_proto(text)]) == shape(list(compiled(text, tmp_path).file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("message {", "line 1: expected the name of a message"),
        ("message A {\n  int32 = 1;\n}", "line 2: expected the name of a field, got ="),
        ("message A { int32 a = x; }", "a whole number"),
        ("message A { optional group G = 1 { } }", "group, which is not supported"),
        ("message A {", "got the end"),
        ('syntax = "proto4";', "the syntax proto2 or proto3"),
        ("$", r"'\$' is not understood"),
        ('edition = "2023";', "proto2 or proto3"),
        ("message A {" * 100, "nest at most 64 deep"),
        ('message A { optional int32 a = 1 [default = "', "is not understood"),
    ],
)
def test_a_source_that_is_none_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        parse_proto(text)


@pytest.mark.parametrize("variant", NATIVE)
def test_tables_give_the_bits_and_rejections_of_the_reference(variant: str) -> None:
    accepted = 0
    for seed in range(examples(1500)):
        case = ProtoCase(seed)
        values = [case.damaged() if case.random.random() < 0.4 else case.record() for _ in range(8)]
        expected = Decoder(case.contract, "off", case.format).decode(values)
        decoder = Decoder(case.contract, "auto", case.format, variant=variant)
        for _ in range(2):
            found = decoder.decode(values)
            assert found.matrix.tobytes() == expected.matrix.tobytes(), seed
            assert (list(found.ids), found.rejections) == (list(expected.ids), expected.rejections), seed
        accepted += len(expected.ids)
    assert accepted > 2 * examples(1500)


def test_the_part_that_is_needed_reads_as_the_whole_does(tmp_path: Path) -> None:
    """The reference reads with a schema that has the needed fields only. upb with all of protoc's says the same of them."""
    compared = 0
    for seed in range(examples(100)):
        case = ProtoCase(seed)
        text = case.text + '\nimport "google/protobuf/wrappers.proto";'
        pool = descriptor_pool.DescriptorPool()
        for file in compiled(text, tmp_path).file:
            pool.Add(file)
        whole = message_factory.GetMessageClass(pool.FindMessageTypeByName("bank.Top"))
        decoder = Decoder(case.contract, "off", case.format)
        for _ in range(6):
            data = case.record()
            try:
                message = whole.FromString(data)
            except DecodeError:
                continue  # perhaps of a field that is not needed
            decoded = decoder.decode([data])
            for rejection in decoded.rejections:
                assert rejection.reason != "invalid_protobuf", seed
            if decoded.ids:
                assert orjson.loads(decoded.ids[0]) == message.id, seed
                _same_numbers(decoded.matrix[0], case.contract, message, seed)
                compared += 1
    assert compared > examples(100)


def _same_numbers(row: Any, contract: Contract, message: Any, seed: int) -> None:
    """Of the plain numbers that are at the top of the message: the value as the whole class has it."""
    for column, feature in enumerate(contract.features):
        step, *more = feature.steps
        of = message.DESCRIPTOR.fields_by_name.get(str(step))
        if feature.kind != "number" or more or of is None or of.message_type or of.type in (9, 12, 14):
            continue
        value = getattr(message, str(step))
        missing = of.has_presence and not message.HasField(str(step))
        expected = math.nan if missing else float(value)
        np.testing.assert_array_equal(row[column], np.float32(expected), str(seed))


PAYMENT = """syntax = "proto3";
package bank;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Payment {
  string id = 1;
  google.protobuf.Timestamp at = 2;
  Card card = 3;
  map<string, string> tags = 4;
  repeated Item items = 5;
  oneof by { string iban = 6; Wallet wallet = 7; }
  google.protobuf.BoolValue online = 8;
  message Card { double amount = 1; Network network = 2; optional double limit = 3; }
  message Item { float price = 1; }
}
message Wallet { uint32 age = 1; }
enum Network { NONE = 0; VISA = 1; }
"""
CONTRACT = Contract(
    (
        Feature("amount", path="card.amount"),
        Feature("network", "category", path="card.network", vocabulary=("VISA", "NONE", "7")),
        Feature("limit", path="card.limit"),
        Feature("hour", "derived", path="at", derivation="hour_of_day"),
        Feature("channel", "category", path="tags.channel", vocabulary=("web",)),
        Feature("price", path="items[1].price"),
        Feature("country", "category", path="iban", vocabulary=("DE", "")),
        Feature("age", path="wallet.age"),
        Feature("online"),
    ),
    id_field="id",
)
CARD = tag(1, 1) + struct.pack("<d", 12.5) + tag(2, 0) + b"\1" + tag(3, 1) + struct.pack("<d", 3)
GOOD = b"".join(
    [
        tag(1, 2) + sized(b"t1"), tag(2, 2) + sized(tag(1, 0) + varint(3600)), tag(3, 2) + sized(CARD),
        tag(4, 2) + sized(tag(1, 2) + sized(b"channel") + tag(2, 2) + sized(b"web")),
        tag(5, 2) + sized(b""), tag(5, 2) + sized(tag(1, 5) + struct.pack("<f", 2.5)), tag(6, 2) + sized(b"DE"),
        tag(8, 2) + sized(tag(1, 0) + b"\1"),
    ]
)  # fmt: skip
ROW = [12.5, 0, 3, 1, 0, 2.5, 0, math.nan, 1]


def decoder_of(text: str, kernels: str, contract: Contract = CONTRACT, message: str = "") -> Decoder:
    return Decoder(contract, kernels, Format("protobuf", schema=Schema("protobuf", text, message=message)))


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_presence_oneofs_maps_and_well_known_types(kernels: str) -> None:
    values = [
        GOOD,
        GOOD + tag(7, 2) + sized(tag(1, 0) + b"\5"),  # ends the other member of its oneof
        GOOD + tag(3, 2) + sized(tag(2, 0) + b"\7"),  # is merged; an open enum takes any number
        tag(1, 2) + sized(b"t1"),
        tag(1, 2) + sized(b"t1") + tag(3, 2) + sized(b""),  # there, so what has no presence is 0
    ]
    nan = math.nan
    rows = [
        ROW,
        [*ROW[:6], nan, 5, 1],
        [12.5, 2, *ROW[2:]],
        [nan] * 9,
        [0, 1, *[nan] * 7],
    ]
    decoded = decoder_of(PAYMENT, kernels).decode(values)
    assert decoded.rejections == []
    np.testing.assert_array_equal(decoded.matrix, np.array(rows, np.float32))
    assert decoded.handed_over == (0 if kernels == "auto" else 5)


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (GOOD[:-1], "invalid_protobuf", None),
        (GOOD + b"\0", "invalid_protobuf", None),
        (GOOD + tag(1, 2) + sized(b"\xff"), "invalid_protobuf", None),
        (GOOD + tag(9, 3), "invalid_protobuf", None),
        (GOOD[4:], "missing_field", "id"),
        (GOOD + tag(3, 2) + sized(tag(1, 1) + struct.pack("<d", 1e39)), "out_of_range", "card.amount"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(kernels: str, value: bytes, reason: str, field: str | None) -> None:
    decoded = decoder_of(PAYMENT, kernels).decode([GOOD, value, GOOD])
    assert [(r.index, r.reason, r.field) for r in decoded.rejections] == [(1, reason, field)]


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("string id = 1;", "", "id", "is required and not in the schema"),
        ("string id = 1;", "double id = 1;", "id", "is double in the schema, expected an identifier"),
        ("double amount = 1", "bytes amount = 1", "card.amount", "is bytes in the schema, expected a number"),
        ("double amount = 1", "repeated double amount = 1", "card.amount", "is repeated double in the schema"),
        ("Card card = 3", "string card = 3", "card", "is string in the schema, expected a message"),
        ("repeated Item items", "Item items", "items", "is bank.Payment.Item in the schema, expected an array"),
        ("map<string, string> tags", "string tags", "tags", "is string in the schema, expected a message"),
        ("Wallet wallet", "Unknown wallet", "wallet", "is of a type that the schema does not define"),
        ("message Wallet {", "message Wallet {{", None, "cannot be read: line 16"),
    ],
)
def test_a_schema_that_cannot_fit_rejects_by_name(kernels: str, old: str, new: str, field: str | None, message: str) -> None:
    decoder = decoder_of(PAYMENT.replace(old, new), kernels)
    for _ in range(2):
        (rejection,) = decoder.decode([GOOD]).rejections
        assert (rejection.reason, rejection.field) == ("schema_mismatch", field)
        assert message in rejection.message


def test_a_file_of_descriptors_is_as_good_as_a_source(tmp_path: Path) -> None:
    data = compiled(PAYMENT, tmp_path).SerializeToString()
    schema = Schema("protobuf", "", descriptors=data, message="bank.Payment")
    np.testing.assert_array_equal(Decoder(CONTRACT, "auto", Format("protobuf", schema=schema)).decode([GOOD]).matrix[0], ROW)
    for wrong in (b"nonsense", b""):
        broken = Format(
            "protobuf",
            schema=Schema("protobuf", "", descriptors=wrong or descriptor_pb2.FileDescriptorSet().SerializeToString()),
        )
        assert Decoder(CONTRACT, "auto", broken).decode([GOOD]).rejections[0].reason == "schema_mismatch"


class Registry:
    def get(self, _number: int) -> Schema:
        return Schema(
            "protobuf",
            "syntax = 'proto3'; message Other { message Inner { string id = 2; } } "
            + PAYMENT.replace('syntax = "proto3";', ""),
        )

    def number_of(self, _guid: bytes) -> None: ...


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_each_record_says_which_message_it_is(kernels: str) -> None:
    contract = Contract((Feature("amount", path="card.amount"),), id_field="id")
    decoder = Decoder(contract, kernels, Format("protobuf", schemas=Registry()))
    start = b"\0\0\0\0\7"
    payment, inner = b"\2\2", b"\4\0\0"
    values = [
        start + payment + GOOD, start + inner + tag(2, 2) + sized(b"x"), start + b"\0" + GOOD, start + b"\2\x14" + GOOD,
        start + b"\x80\x80\x80\x80\x80", start, GOOD,
    ]  # fmt: skip
    decoded = decoder.decode(values)
    assert (decoded.indices.tolist(), list(decoded.ids)) == ([0, 1], [b'"t1"', b'"x"'])
    assert [(r.index, r.reason) for r in decoded.rejections] == [
        (2, "schema_mismatch"), (3, "schema_mismatch"), (4, "invalid_protobuf"), (5, "invalid_protobuf"), (6, "no_schema_id"),
    ]  # fmt: skip


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_an_unknown_group_may_hold_the_number_0(kernels: str) -> None:
    """As upb reads it: only fields that are not in a group have to have another number. Found by fuzz_binary.py."""
    group = tag(500_000, 3) + b"\0\5" + tag(1, 3) + tag(1, 4) + tag(500_000, 4)
    decoded = decoder_of(PAYMENT, kernels).decode([GOOD + group, GOOD + b"\0\5"])
    assert decoded.indices.tolist() == [0]


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_message_of_which_nothing_is_read_has_no_field_of_the_number_0(kernels: str) -> None:
    """upb takes one in a message without fields, which a member of a oneof may be here. Found by fuzz_binary.py."""
    contract = Contract((Feature("country", "category", path="iban", vocabulary=("DE",)),), id_field="id")
    decoded = decoder_of(PAYMENT, kernels, contract).decode([GOOD, GOOD + tag(7, 2) + sized(b"\0\5")])
    assert [(r.index, r.reason) for r in decoded.rejections] == [(1, "invalid_protobuf")]
