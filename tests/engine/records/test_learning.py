"""The order of the fields is learned, extended and learned anew; and what is not learned still comes out right."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.records.decode import Decoder
from tests.engine.records.decoders import NATIVE, make_decoder

N = 30
CONTRACT = Contract(tuple(Feature(f"f{i}") for i in range(N)), id_field="id")


def record(order: Iterable[int], number: int = 0, separators: tuple[str, str] = (",", ":"), extra: str = "") -> bytes:
    comma, colon = separators
    fields = [f'"id"{colon}{number}'] + [f'"f{k}"{colon}{k + number}' for k in order]
    return ("{" + comma.join(fields) + extra + "}").encode()


def statistics(decoder: Decoder) -> dict[str, int]:
    assert decoder._native
    return decoder._native.statistics


def slow_walks(decoder: Decoder, values: list[bytes]) -> int:
    before = statistics(decoder)["slow_walks"]
    decoded = decoder.decode(values)
    assert decoded.handed_over == 0
    assert len(decoded.matrix) == len(values)
    assert decoded.matrix.tobytes() == make_decoder("reference", CONTRACT).decode(values).matrix.tobytes()
    return statistics(decoder)["slow_walks"] - before


@pytest.fixture(params=NATIVE)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return make_decoder(request.param, CONTRACT)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n    ", ": "), (" , ", " : ")])
def test_one_order_costs_one_slow_walk(decoder: Decoder, separators: tuple[str, str]) -> None:
    assert slow_walks(decoder, [record(range(N), i, separators) for i in range(500)]) == 1


def test_a_producer_that_changes_its_order_is_learned_anew(decoder: Decoder) -> None:
    slow_walks(decoder, [record(range(N), i) for i in range(500)])
    assert slow_walks(decoder, [record(range(N - 1, -1, -1), i) for i in range(500)]) <= 2


def shuffled(rng: random.Random) -> list[int]:
    return rng.sample(range(N), N)


def test_four_orders_in_turn_are_all_known(decoder: Decoder) -> None:
    rng = random.Random(5)
    orders = [shuffled(rng) for _ in range(4)]
    values = [record(orders[i % 4], i) for i in range(4000)]
    slow_walks(decoder, values)
    assert slow_walks(decoder, values) == 0


def test_six_orders_in_turn_are_no_disaster(decoder: Decoder) -> None:
    rng = random.Random(5)
    orders = [shuffled(rng) for _ in range(6)]
    values = [record(orders[i % 6], i) for i in range(3000)]
    slow_walks(decoder, values)
    assert statistics(decoder)["learned"] < len(values) / 20


def test_shuffled_fields_are_hardly_ever_learned(decoder: Decoder) -> None:
    rng = random.Random(6)
    slow_walks(decoder, [record(shuffled(rng), i) for i in range(5000)])
    assert statistics(decoder)["learned"] <= 14


def test_absent_fields_extend_the_order(decoder: Decoder) -> None:
    rng = random.Random(7)
    values = [record([k for k in range(N) if rng.random() < 0.6], i) for i in range(2000)]
    slow_walks(decoder, values)
    assert slow_walks(decoder, values) <= 5
    assert statistics(decoder)["orders"] == 1


def test_unknown_fields_are_learned_too(decoder: Decoder) -> None:
    extra = ',"x":[1,{"f0":2}],"y":"text","a_long_name_of_an_unknown_field_that_fills_a_token":null'
    assert slow_walks(decoder, [record(range(N), i, extra=extra) for i in range(300)]) == 1


def test_ever_new_unknown_fields_do_not_grow_the_order_without_limit(decoder: Decoder) -> None:
    assert slow_walks(decoder, [record(range(N), i, extra=f',"trace_{i}":1') for i in range(5000)]) == 5000
    assert statistics(decoder)["learned"] <= 40


def test_more_unknown_fields_than_an_order_keeps_are_read_all_the_same(decoder: Decoder) -> None:
    extra = "".join(f',"u{i}":{i}' for i in range(4200))
    assert decoder.decode([record(range(N), i, extra=extra) for i in range(3)]).handed_over == 0


def test_a_wide_feed_of_which_the_model_reads_little(decoder: Decoder) -> None:
    extra = "".join(f',"u{i}":{i}' for i in range(3000))
    assert slow_walks(decoder, [record(range(N), i, extra=extra) for i in range(20)]) == 1


def faults(decoder: Decoder, values: list[bytes]) -> list[Any]:
    return [(r.reason, r.field) for r in decoder.decode(values).rejections]


def test_a_repeated_field_is_found_in_every_walk(decoder: Decoder) -> None:
    slow_walks(decoder, [record(range(N), i) for i in range(10)])
    twice = [record([*range(N), 5]), record([5, *range(N)]), record(range(N), extra=',"x":1,"x" :2'), record([0, 0, 1])]
    assert faults(decoder, twice) == [("repeated_field", name) for name in ("f5", "f5", "x", "f0")]


def test_a_repeated_unknown_field_is_found_after_it_was_learned_in_two_spellings(decoder: Decoder) -> None:
    slow_walks(decoder, [record(range(N), i, extra=',"x":1') for i in range(10)])
    slow_walks(decoder, [record(range(N), i, extra=',"x" :1') for i in range(300)])
    twice = [record(range(N), extra=',"x":1,"x" :1'), record(range(N), extra=',"x" :1,"x":1')]
    assert faults(decoder, twice) == [("repeated_field", "x")] * 2


def test_unknown_fields_that_are_spelled_with_escapes_are_no_disaster(decoder: Decoder) -> None:
    extra = ',"caf\\u00e9":1,"\\u0078yz":"text"'
    assert slow_walks(decoder, [record(range(N), i, extra=extra) for i in range(300)]) == 1
    more = (',"café":1', ',"xyz":1', ',"caf\\u00e9" :1', ',"\\u0063afé":2')
    found = faults(decoder, [record(range(N), extra=extra + other) for other in more] * 50)
    assert set(found) == {("repeated_field", "café"), ("repeated_field", "xyz")}
    assert len(found) == 200


def test_many_long_escaped_unknown_fields_in_one_record(decoder: Decoder) -> None:
    extra = "".join(f',"\\u00e9{"k" * 50}{i}":{i}' for i in range(400))
    slow_walks(decoder, [record(range(N), i, extra=extra + f',"new{i}":1') for i in range(20)])


def test_a_learned_field_that_is_longer_than_the_next_record(decoder: Decoder) -> None:
    """Found by reading, not by a test: the compare with the expected field must not leave the buffer (`make sanitize`)."""
    for n in (20, 40, 100, 5000):
        slow_walks(decoder, [record([], i, extra=f',"{"k" * n}":1') for i in range(200)] + [record([], i) for i in range(5)])


TREE = Contract(
    (
        *(Feature(f"f{i}", path=f"a.f{i}") for i in range(10)),
        *(Feature(f"g{i}", path=f"a.b.f{i}") for i in range(10)),
        *(Feature(f"h{i}", path=f"c.f{i}") for i in range(10)),
        *(Feature(f"f_{i}", source=f"f{i}") for i in range(10)),
    ),
    id_field="id",
)


def nested(rng: random.Random, style: Any, number: int, *, absent: float = 0.0, extra: bool = False) -> bytes:
    def numbered() -> dict[str, Any]:
        fields: dict[str, Any] = {f"f{i}": i + number for i in range(10) if rng.random() >= absent}
        return fields | ({"unknown": {"f1": [1]}} if extra else {})

    inner = numbered() if rng.random() >= absent else None
    tree = {"id": number, "a": numbered() | {"b": inner, "z": 1}, **numbered(), "c": numbered()}
    return json.dumps(tree, **style).encode()


def slow_nested(decoder: Decoder, values: list[bytes]) -> int:
    before = statistics(decoder)["slow_walks"]
    decoded, expected = decoder.decode(values), make_decoder("reference", TREE).decode(values)
    assert decoded.matrix.tobytes() == expected.matrix.tobytes()
    assert (decoded.handed_over, decoded.rejections) == (0, [])
    return statistics(decoder)["slow_walks"] - before


STYLES: list[Any] = [{"separators": (",", ":")}, {}, {"indent": 2}]


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("style", STYLES, ids=["compact", "as json.dumps writes", "indented"])
def test_objects_on_paths_are_part_of_the_order(name: str, style: Any) -> None:
    decoder, rng = make_decoder(name, TREE), random.Random(3)
    assert slow_nested(decoder, [nested(rng, style, i, extra=True) for i in range(300)]) == 1


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("style", STYLES, ids=["compact", "as json.dumps writes", "indented"])
def test_absent_fields_and_null_objects_extend_a_nested_order(name: str, style: Any) -> None:
    decoder, rng = make_decoder(name, TREE), random.Random(4)
    values = [nested(rng, style, i, absent=0.3) for i in range(3000)]
    slow_nested(decoder, values)
    assert slow_nested(decoder, values) <= 60


@pytest.mark.parametrize("name", NATIVE)
def test_a_repeated_key_is_found_in_its_object_only(name: str) -> None:
    decoder, rng = make_decoder(name, TREE), random.Random(5)
    slow_nested(decoder, [nested(rng, STYLES[0], i, extra=True) for i in range(20)])
    good = nested(rng, STYLES[0], 1, extra=True)
    assert faults(decoder, [good.replace(b'"c":{', b'"c":{"f3":0,'), good.replace(b'"z":1', b'"z":1,"z":2')]) == [
        ("repeated_field", "c.f3"), ("repeated_field", "a.z"),
    ]  # fmt: skip
