"""What docs/reference/records.md says, by the native rows and by the reference."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.kernels import Native
from saker.engine.records.decode import Decoded, Decoder

CONTRACT = Contract(
    features=(
        Feature("amount", required=True),
        Feature("product", "category", required=True, vocabulary=("C", "W")),
        Feature("hour", "derived", source="time", derivation="hour_of_day"),
        Feature("day", "derived", source="time", derivation="day_of_week", required=True),
        Feature("distance"),
        Feature("device", "category", vocabulary=("mobile",)),
    ),
    id_field="id",
)
GOOD = b'{"id":7,"amount":12.5,"product":"W","time":90000,"distance":3,"device":"mobile"}'
Decode = Callable[..., Decoded]
Told = list[tuple[int, str, str | None]]


@pytest.fixture(params=["auto", "off"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    made = Decoder(CONTRACT, request.param)
    assert (made.backend == "reference") == (request.param == "off"), made.backend_reason
    return made


def told(decoded: Decoded) -> Told:
    assert len(decoded.ids) == len(decoded.indices) == len(decoded.matrix)
    return [(r.index, r.reason, r.field) for r in decoded.rejections]


def test_a_record_becomes_the_row_of_the_contract(decoder: Decoder) -> None:
    decoded = decoder.decode([GOOD])
    assert decoded.matrix.dtype == np.float32
    assert (decoded.matrix.tolist(), told(decoded)) == ([[12.5, 1.0, 1.0, 1.0, 3.0, 0.0]], [])


def test_optional_fields_may_be_absent_null_empty_or_unseen(decoder: Decoder) -> None:
    decoded = decoder.decode(
        [
            b'{"id":"a","amount":1,"product":"C","time":0}',
            b'{"id":"b","amount":1,"product":"unseen","time":0,"distance":null,"device":null,"more":[1]}',
            b'{"id":"c","amount":1,"product":"W","time":0,"distance":"","device":""}',
        ]
    )
    assert told(decoded) == []
    rows = [[1, 0, 0, 0, math.nan, math.nan], [1, math.nan, 0, 0, math.nan, math.nan], [1, 1, 0, 0, math.nan, math.nan]]
    np.testing.assert_array_equal(decoded.matrix, rows)


def test_numbers_round_once_from_their_double_to_float32(decoder: Decoder) -> None:
    row = decoder.decode([b'{"id":1,"amount":0.1,"product":"C","time":0,"distance":16777217}']).matrix[0]
    assert row[0] == np.float32(0.1)
    assert row[4] == 16777216.0


def test_a_number_may_be_written_as_a_string(decoder: Decoder) -> None:
    decoded = decoder.decode([b'{"id":1,"amount":"-1.5e3","product":"C","time":"90000","distance":"0.1"}'])
    np.testing.assert_array_equal(decoded.matrix[0], np.array([-1500, 0, 1, 1, 0.1, math.nan], np.float32))


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"7", b"7"),
        (b"-0.50", b"-0.50"),
        (b"123456789012345678901234567890", b"123456789012345678901234567890"),
        (b'"a b"', b'"a b"'),
        ('"é"'.encode(), '"é"'.encode()),
        (b'"a\\u0062\\/"', b'"ab/"'),
        (b'"\\n\\""', b'"\\n\\""'),
    ],
)
def test_an_identifier_is_kept(decoder: Decoder, written: bytes, kept: bytes) -> None:
    decoded = decoder.decode([None, GOOD, GOOD.replace(b'"id":7', b'"id":' + written), GOOD])
    assert list(decoded.ids) == [b"7", kept, b"7"]
    assert list(decoded.ids[1:]) == [kept, b"7"]
    assert decoded.indices.tolist() == [1, 2, 3]


def with_(field: str, written: str) -> bytes:
    fields = {"id": "1", "amount": "1", "product": '"C"', "time": "0"} | {field: written}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items() if value) + "}").encode()


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "empty_record", None),
        (b"", "empty_record", None),
        (b"{", "invalid_json", None),
        (b'{"id":\xff}', "invalid_json", None),
        (b'{"id":1}{"id":2}', "invalid_json", None),
        (with_("amount", "NaN"), "invalid_json", None),
        (with_("amount", "01"), "invalid_json", None),
        (with_("more", '"\\ud800"'), "invalid_json", None),
        (with_("more", '1e400,"x":"\\ud800"'), "invalid_json", None),
        (with_("more", '1e400,"x":-Infinity'), "invalid_json", None),
        (with_("more", "1e400,"), "invalid_json", None),
        (with_("more", "[" * 64 + "]" * 64), "too_deep", None),
        (b"[1]", "not_an_object", None),
        (b"null", "not_an_object", None),
        (with_("id", ""), "missing_field", "id"),
        (with_("id", "null"), "missing_field", "id"),
        (with_("id", '""'), "missing_field", "id"),
        (with_("id", "true"), "wrong_type", "id"),
        (with_("id", "[1]"), "wrong_type", "id"),
        (with_("amount", ""), "missing_field", "amount"),
        (with_("amount", "null"), "missing_field", "amount"),
        (with_("amount", '""'), "missing_field", "amount"),
        (with_("product", ""), "missing_field", "product"),
        (with_("time", ""), "missing_field", "time"),
        (with_("amount", '"12,5"'), "wrong_type", "amount"),
        (with_("amount", '" 12"'), "wrong_type", "amount"),
        (with_("amount", '"\\u0661"'), "wrong_type", "amount"),
        (with_("amount", "[1]"), "wrong_type", "amount"),
        (with_("product", "{}"), "wrong_type", "product"),
        (with_("product", '["C"]'), "wrong_type", "product"),
        (with_("time", '"noon"'), "wrong_type", "time"),
        (with_("amount", "1e39"), "out_of_range", "amount"),
        (with_("amount", "1e400"), "out_of_range", "amount"),
        (with_("distance", "-1e39"), "out_of_range", "distance"),
        (with_("time", "1e39"), "out_of_range", "time"),
        (with_("amount", '1,"amount":1'), "repeated_field", "amount"),
        (with_("more", '1,"\\u006dore":1'), "repeated_field", "more"),
        (with_("m" * 300, '1,"' + "m" * 300 + '":2'), "repeated_field", "m" * 200 + "..."),
    ],
)
def test_a_bad_record_is_rejected_and_its_neighbours_are_scored(
    decoder: Decoder, value: bytes | None, reason: str, field: str | None
) -> None:
    alone = decoder.decode([GOOD]).matrix.tolist()
    decoded = decoder.decode([GOOD, value, GOOD])
    assert decoded.matrix.tolist() == alone * 2
    assert told(decoded) == [(1, reason, field)]
    assert decoded.rejections == Decoder(CONTRACT, "off").decode([GOOD, value, GOOD]).rejections


def test_deep_and_infinite_values_that_nobody_reads_are_let_be(decoder: Decoder) -> None:
    decoded = decoder.decode([with_("more", "[" * 63 + "]" * 63), with_("more", "1e400"), with_("more", '{"a":1,"a":2}')])
    assert told(decoded) == []


def test_the_first_fault_in_the_record_counts_and_what_is_missing_comes_last(decoder: Decoder) -> None:
    assert told(decoder.decode([b'{"distance":{},"amount":[]}'])) == [(0, "wrong_type", "distance")]
    assert told(decoder.decode([b'{"distance":1}'])) == [(0, "missing_field", "id")]
    assert told(decoder.decode([b'{"id":1}'])) == [(0, "missing_field", "amount")]


@pytest.mark.parametrize("field", ["amount", "time"])
def test_the_range_is_that_of_rounding_to_float32(decoder: Decoder, field: str) -> None:
    first_too_large = 2.0**128 - 2.0**103
    assert told(decoder.decode([with_(field, repr(math.nextafter(first_too_large, 0)))])) == []
    assert told(decoder.decode([with_(field, repr(-first_too_large))])) == [(0, "out_of_range", field)]


@pytest.mark.parametrize("seconds", [0, -1, -3600.5, 3599.9999999, 86399, 86400 * 7, 1e14, -1e14, 1e15, 1e18, 1.7e9])
def test_times_have_an_hour_and_a_day(decoder: Decoder, seconds: float) -> None:
    row = decoder.decode([with_("time", repr(seconds))]).matrix[0]
    assert row[2:4].tolist() == [math.floor(seconds / 3600) % 24, math.floor(seconds / 86400) % 7]


def test_records_without_any_feature_are_counted() -> None:
    contract = Contract((Feature("a"), Feature("b", "category", vocabulary=("x",)), Feature("h", "derived", source="t",
                         derivation="hour_of_day")), id_field="id")  # fmt: skip
    blank = [b'{"id":1}', b'{"id":1,"A":1}', b'{"id":1,"b":"unseen"}', b'{"id":1,"a":null,"t":""}', b'{"id":1,"c":1e400}']
    full = [b'{"id":1,"a":0}', b'{"id":1,"b":"x"}', b'{"t":1,"id":1}', b'{"id":1,"a":1,"c":1e400}', b'{"id":true}', b"{"]
    for kernels in ("auto", "off"):
        decoder = Decoder(contract, kernels)
        decoder.decode(blank[:2] + full)
        assert decoder.drain_blank() == 2
        decoder.decode(full)
        assert decoder.drain_blank() == 0
        decoder.decode(blank * 3)
        assert decoder.drain_blank() == 15


def test_indices_and_rejections_cover_the_batch_in_order(decoder: Decoder) -> None:
    decoded = decoder.decode([with_("amount", "1e39"), GOOD, b"x", GOOD, None])
    assert decoded.indices.tolist() == [1, 3]
    assert [r.index for r in decoded.rejections] == [0, 2, 4]


def test_an_empty_batch_is_an_empty_matrix(decoder: Decoder) -> None:
    assert decoder.decode([]).matrix.shape == (0, 6)


def test_no_value_of_a_record_stands_in_a_message(decoder: Decoder) -> None:
    card = "4111111111111111"
    wrong = [
        with_("amount", f'"{card}x"'),
        with_("amount", f"{card}e99"),
        with_("more", f"{card}x"),
        with_("product", f'["{card}"]'),
    ]
    messages = [r.message for r in decoder.decode(wrong).rejections]
    assert len(messages) == 4
    assert card not in " ".join(messages)


@pytest.mark.parametrize(
    ("features", "why"),
    [
        ((Feature("a"), Feature("id")), "a feature reads the identifier 'id'"),
    ],
)
def test_contracts_that_the_native_rows_do_not_take(features: tuple[Feature, ...], why: str) -> None:
    decoder = Decoder(Contract(features, id_field="id"))
    assert decoder.backend == "reference"
    assert why in decoder.backend_reason
    assert decoder.decode([b'{"id":1}']).handed_over == 1


def test_an_unknown_variant_is_named(extension: Native) -> None:
    with pytest.raises(ValueError, match="'sse9'"):
        extension.Decoder(variant="sse9", width=1, branches=(), fields=(), identifier_slot=0)
