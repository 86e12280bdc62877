"""Paths, times and shared values, by the native rows and by the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.errors import ModelRefused
from saker.engine.paths import find, is_there, parse_path, path_text, place
from tests.engine.records.decoders import DECODERS, make_decoder

NAN = math.nan


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("amount", ("amount",)),
        ("after.card.amount", ("after", "card", "amount")),
        ("items[0].price", ("items", 0, "price")),
        ("grid[1][20]", ("grid", 1, 20)),
        (r"a\.b.c\[0\]\\", ("a.b", "c[0]\\")),
        ("été.2", ("été", "2")),
    ],
)
def test_a_path_is_read_and_written(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path
    assert path_text(path) == text


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "[0]", "a[", "a[]", "a[-1]", "a[01]", "a.[0]", "a]b", "a\\", r"a\b", "a[0]b"]
)
def test_what_is_no_path_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(ModelRefused, match=r"expected keys separated by dots"):
        parse_path(text)


def test_a_path_of_more_steps_than_a_record_may_nest_is_refused() -> None:
    parse_path(".".join("a" * 64))
    with pytest.raises(ModelRefused, match="at most 64 steps, got 65"):
        parse_path(".".join("a" * 65))


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("a", "a.b", "'a' cannot be an object for 'a.b' and a value for 'a'"),
        ("a[0]", "a.b", "'a' cannot be an object for 'a.b' and an array for 'a[0]'"),
        ("id", "id.x", "'id' cannot be"),
    ],
)
def test_paths_that_no_record_can_have_are_refused(one: str, other: str, message: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        Contract((Feature("x", path=one), Feature("y", path=other)), id_field="id")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"name": "x", "path": "a", "source": "a"}, "expected source or path, got both"),
        ({"name": "x", "unit": "ms"}, "unit is for derived features"),
        ({"name": "x", "kind": "derived", "derivation": "hour_of_day", "path": "t", "unit": "min"}, "one of s, ms, us, ns"),
        ({"name": "x", "kind": "derived", "derivation": "hour_of_day"}, "derived needs a source or path"),
    ],
)
def test_features_that_contradict_themselves_are_refused(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        Feature(**feature)


def test_a_contract_says_version_2_only_where_earlier_releases_cannot_read_it() -> None:
    old = Contract((Feature("a.b"), Feature("h", "derived", source="t", derivation="hour_of_day")), id_field="id")
    new = Contract((Feature("x", path="a.b"),), id_field="id")
    for contract, version in ((old, 1), (new, 2), (Contract(old.features, id_path="after.id"), 2)):
        assert contract.format_version == version
        assert f'"format_version":{version}' in contract.to_json()
        assert Contract.from_json(contract.to_json()) == contract


def test_values_are_placed_and_found() -> None:
    record: dict[str, Any] = {}
    place(record, ("a", "b"), 1)
    place(record, ("a", "list", 1, "x"), 2)
    place(record, ("a", "list", 0), 3)
    assert record == {"a": {"b": 1, "list": [3, {"x": 2}]}}
    for path, value in ((("a", "b"), 1), (("a", "list", 1, "x"), 2), (("a", "list", 2), None), (("a", "b", "c"), None)):
        assert find(record, path) == value
    there = [is_there(record, path) for path in (("a", "b"), ("a", "list", 2), ("z",), ("a", "b", "c"))]
    assert there == [True, False, False, False]


CONTRACT = Contract(
    (
        Feature("amount", path="after.card.amount", required=True),
        Feature("dotted", path=r"after.a\.b"),
        Feature("price", path="after.items[1].price"),
        Feature("after.card.amount"),
        Feature("channel", "category", path="after.channel", vocabulary=("web", "7", "true")),
        Feature("channel_number", path="after.channel"),
    ),
    id_field="transaction",
    id_path="after.id",
)
FULL = (
    b'{"op":"c","after":{"id":"t1","card":{"amount":12.5},"a.b":1,"items":[{},{"price":3}],"channel":7},"after.card.amount":9}'
)


def changed(old: str, new: str) -> bytes:
    assert old.encode() in FULL
    return FULL.replace(old.encode(), new.encode())


ACCEPTED: list[tuple[bytes, list[float]]] = [
    (FULL, [12.5, 1, 3, 9, 1, 7]),
    (changed('"items":[{},{"price":3}],', ""), [12.5, 1, NAN, 9, 1, 7]),
    (changed('[{},{"price":3}]', "null"), [12.5, 1, NAN, 9, 1, 7]),
    (changed('[{},{"price":3}]', "[]"), [12.5, 1, NAN, 9, 1, 7]),
    (changed('[{},{"price":3}]', "[1,null]"), [12.5, 1, NAN, 9, 1, 7]),
    (changed('[{},{"price":3}]', '[[],{"price":"4","price2":[{}]},5]'), [12.5, 1, 4, 9, 1, 7]),
    (changed('"channel":7', '"channel":true'), [12.5, 1, 3, 9, 2, 1]),
    (changed('"channel":7', '"channel":null'), [12.5, 1, 3, 9, NAN, NAN]),
    (changed('"channel":7', '"channel":7.0'), [12.5, 1, 3, 9, 1, 7]),
    (changed('"card":{', '"other":{"amount":1},"card":{"id":1,"x":{"amount":2},'), [12.5, 1, 3, 9, 1, 7]),
]
REJECTED: list[tuple[bytes, str, str]] = [
    (changed('"card":{"amount":12.5}', '"card":null'), "missing_field", "after.card.amount"),
    (changed('"card":{"amount":12.5}', '"card":{}'), "missing_field", "after.card.amount"),
    (changed('{"amount":12.5}', '"12.5"'), "wrong_type", "after.card"),
    (changed('{"amount":12.5}', "[12.5]"), "wrong_type", "after.card"),
    (changed('[{},{"price":3}]', '{"1":{"price":3}}'), "wrong_type", "after.items"),
    (changed('[{},{"price":3}]', '[{},{"price":[]}]'), "wrong_type", "after.items[1].price"),
    (changed('"a.b":1', '"a.b":{}'), "wrong_type", r"after.a\.b"),
    (changed('"id":"t1",', ""), "missing_field", "after.id"),
    (b'{"op":"d","after":null}', "missing_field", "after.id"),
    (changed('"card":{', '"card":{"amount":1,'), "repeated_field", "after.card.amount"),
    (changed('"a.b":1', '"a.b":1,"x.y":1,"x.y":2'), "repeated_field", r"after.x\.y"),
    (changed('"op":"c"', '"after":{},"op":"c"'), "repeated_field", "after"),
    (changed('"channel":7', '"channel":"web"'), "wrong_type", "after.channel"),
]


@pytest.mark.parametrize("name", DECODERS)
def test_paths_lead_to_values(name: str) -> None:
    decoder = make_decoder(name, CONTRACT)
    for _ in range(3):
        decoded = decoder.decode([value for value, _ in ACCEPTED])
        assert decoded.rejections == []
        np.testing.assert_array_equal(decoded.matrix, np.array([row for _, row in ACCEPTED], np.float32))
        assert set(decoded.ids) == {b'"t1"'}
        assert name == "reference" or decoded.handed_over == 0


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_wrong_is_named_by_its_path(name: str) -> None:
    decoder = make_decoder(name, CONTRACT)
    for _ in range(3):
        decoded = decoder.decode([value for value, _, _ in REJECTED] + [FULL])
        assert [(r.reason, r.field) for r in decoded.rejections] == [(reason, field) for _, reason, field in REJECTED]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("unit", [None, "s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-11-30T23:59:59.5+02:00", 1796075999.5),
        ("2026-11-30 21:59:59,500", 1796075999.5),
        ("2000-02-29", 951782400.0),
        ("1969-12-31t23:00-0100", 0.0),
    ],
)
def test_a_text_with_a_time_needs_no_unit(name: str, unit: str | None, text: str, seconds: float) -> None:
    features = [Feature(d, "derived", path="t", derivation=d, unit=unit) for d in ("seconds", "hour_of_day", "day_of_week")]
    decoder = make_decoder(name, Contract(tuple(features), id_field="id"))
    per_second = {None: 1, "s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    decoded = decoder.decode([b'{"id":1,"t":"%b"}' % text.encode(), b'{"id":1,"t":%d}' % (seconds * per_second)])
    assert decoded.rejections == []
    whole = math.floor(seconds)
    for row, at in zip(decoded.matrix, (seconds, whole), strict=True):
        assert row.tolist() == [np.float32(at), whole // 3600 % 24, whole // 86400 % 7]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "text", ["2026-11-31", "2026-13-01", "2026-1-1", "2026-11-30T24:00Z", "2026-11-30T23:59:60Z", "now", "1 s"]
)
def test_a_text_without_a_time_is_rejected(name: str, text: str) -> None:
    contract = Contract((Feature("h", "derived", path="t", derivation="hour_of_day"),), id_field="id")
    (rejection,) = make_decoder(name, contract).decode([b'{"id":1,"t":"%b"}' % text.encode()]).rejections
    assert (rejection.reason, rejection.field) == ("wrong_type", "t")
    assert "neither a number nor ISO 8601" in rejection.message
