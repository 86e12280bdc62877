"""Records that are made to harm: keys that collide, orders that are poisoned, and what they cost the records of others."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.records.decode import Decoder
from tests.engine.records.decoders import EXTENSION, NATIVE, make_decoder
from tests.support.collisions import pairs
from tests.support.memory import resident_mb

N = 50
CONTRACT = Contract(tuple(Feature(f"f{i}") for i in range(N)), id_field="id")
REFERENCE = make_decoder("reference", CONTRACT)


@pytest.fixture(params=NATIVE)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return make_decoder(request.param, CONTRACT)


@pytest.fixture(scope="module")
def colliding() -> list[tuple[str, str]]:
    assert EXTENSION
    return pairs(EXTENSION, 40)


def record(number: int, more: str = "", separators: tuple[str, str] = (",", ":")) -> bytes:
    text = json.dumps({"id": number} | {f"f{i}": i + number for i in range(N)}, separators=separators)
    return (text[:-1] + more + "}").encode()


def keys(names: Iterator[str] | list[str]) -> str:
    return "".join(f",{json.dumps(name)}:1" for name in names)


def agree(decoder: Decoder, values: list[bytes]) -> int:
    """How many were handed over."""
    decoded, expected = decoder.decode(values), REFERENCE.decode(values)
    assert decoded.matrix.tobytes() == expected.matrix.tobytes()
    assert decoded.rejections == expected.rejections
    assert list(decoded.ids) == list(expected.ids)
    return decoded.handed_over


def learned(decoder: Decoder) -> int:
    assert decoder._native
    return decoder._native.statistics["learned"]


@pytest.mark.parametrize("n_pairs", [1, 2, 8, 40])
def test_unknown_keys_with_one_hash(decoder: Decoder, colliding: list[tuple[str, str]], n_pairs: int) -> None:
    both = [name for pair in colliding[:n_pairs] for name in pair]
    assert agree(decoder, [record(i, keys([*both, f"n{i}"])) for i in range(40)]) == 0
    assert agree(decoder, [record(i, keys([*reversed(both), f"m{i}"])) for i in range(40)]) == 0
    twice = [record(1, keys([*both, name])) for name in both]
    assert agree(decoder, twice) == 0
    assert {rejection.reason for rejection in decoder.decode(twice).rejections} == {"repeated_field"}


def test_keys_with_one_hash_in_records_of_their_own(decoder: Decoder, colliding: list[tuple[str, str]]) -> None:
    """Each record has one of a pair, so that merging would take the one for the other."""
    rng = random.Random(8)
    for _ in range(300):
        chosen = [rng.choice(pair) for pair in rng.sample(colliding, 12)]
        assert agree(decoder, [record(1, keys(chosen)), record(2, keys([*chosen, chosen[rng.randrange(12)]]))]) == 0


def test_a_known_field_with_the_hash_of_an_unknown_one(colliding: list[tuple[str, str]]) -> None:
    contract = Contract(tuple(Feature(one) for one, _ in colliding), id_field="id")
    reference = make_decoder("reference", contract)
    values = [json.dumps({"id": i} | {name: i for pair in colliding for name in pair}).encode() for i in range(30)]
    for name in NATIVE:
        assert make_decoder(name, contract).decode(values).matrix.tobytes() == reference.decode(values).matrix.tobytes()


def test_every_process_has_a_key_of_its_own() -> None:
    code = "from saker.engine.kernels import native; print(native('auto')[0].hash_key())"
    others = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)}
    assert EXTENSION
    assert len(others | {f"{EXTENSION.hash_key()}\n".encode()}) == 3


STYLES = [(",", ":"), (", ", ": "), (",", ": "), (" , ", " : "), (",\n  ", ": ")]


@pytest.mark.parametrize("first", STYLES)
@pytest.mark.parametrize("second", STYLES)
def test_producers_of_two_styles_are_both_learned(decoder: Decoder, first: tuple[str, str], second: tuple[str, str]) -> None:
    alone = [record(i, separators=first) for i in range(200)]
    mixed = [record(i, separators=(first, second)[i % 2]) for i in range(1000)]
    assert agree(decoder, alone) == 0
    assert agree(decoder, mixed) == 0
    assert decoder._native
    before = decoder._native.statistics["slow_walks"]
    assert agree(decoder, mixed) == 0
    assert decoder._native.statistics["slow_walks"] == before


def test_a_template_with_irregular_separators_is_learned(decoder: Decoder) -> None:
    values = []
    for i in range(300):
        fields = [f'{", " if k % 3 else " ,"}"f{k}"{":" if k % 2 else " : "}{i + k}' for k in range(N)]
        values.append(f'{{ "id": {i}{"".join(fields)} }}'.encode())
    assert agree(decoder, values) == 0
    assert decoder._native
    assert decoder._native.statistics["slow_walks"] == 1


def test_one_record_does_not_slow_down_those_of_others(decoder: Decoder) -> None:
    usual = [record(i) for i in range(100)]
    agree(decoder, usual)
    assert decoder._native
    for extra in (8, 40, 80):
        fat = json.dumps({"id": 1} | {name: 1 for i in range(N) for name in (f"f{i}", *(f"u{i}_{k}" for k in range(extra)))})
        agree(decoder, [fat.replace(" ", "").encode(), fat.encode(), record(1, separators=(",", ": "))])
        before = decoder._native.statistics["slow_walks"]
        agree(decoder, usual)
        assert decoder._native.statistics["slow_walks"] == before


def test_learned_orders_keep_little_of_what_came(decoder: Decoder) -> None:
    usual = [record(i) for i in range(64)]
    agree(decoder, usual)
    before = resident_mb()
    for i in range(100):
        decoder.decode([record(i, keys([f"k{i}{'x' * 950_000}"]))])
        for _ in range(3):
            decoder.decode(usual)
    for i in range(100):
        decoder.decode([record(i, keys([f"{i}_{k}_{'x' * 200}" for k in range(3000)]))])
        for _ in range(3):
            decoder.decode(usual)
    assert resident_mb() - before < 40


def test_identifiers_with_escapes_are_written_as_orjson_would(decoder: Decoder) -> None:
    texts = [chr(i) + "x" for i in range(0x20)] + [
        '"',
        "\\",
        "/",
        "\x7f",
        "é",
        "\u2028",
        "\U0001f600",
        'a"b\\c\n\td',
        "\x00\x1f",
    ]
    spelled = [json.dumps(text) for text in texts]
    spelled += [
        "".join(f"\\u{ord(c):04x}" for c in text if ord(c) < 0x10000).join('""') for text in texts if text != "\U0001f600"
    ]
    spelled += [r'"\/"', r'"\u00e9\/\b"', r'"\ud83d\ude00"', r'"\u0022"']
    assert agree(decoder, [b'{"id":%b,"f0":1}' % text.encode() for text in spelled]) == 0
    assert agree(decoder, [b'{"f0":1,"%b":1,"id":%b,"id":1}' % (b"\\u00e9", text.encode()) for text in spelled]) == 0


def test_texts_that_are_cut_off_are_found_in_linear_time() -> None:
    """In the reference: 64 kB took 46 s once."""
    record = b'{"a":"' + b"[" * 65 + b'","b":"' + b'\\"' * 200_000
    (rejection,) = REFERENCE.decode([record]).rejections
    assert rejection.reason == "invalid_json"


@pytest.mark.parametrize("count", [4_095, 4_097, 20_000, 100_000])
def test_many_unknown_keys_are_not_the_references(decoder: Decoder, count: int) -> None:
    """Valid, and with the last key repeated; the small record after them is read as before."""
    names = [f"k{number}" for number in range(count)]
    assert agree(decoder, [record(1), record(2, keys(names)), record(3, keys([*names, names[0]])), record(4)]) == 0
    assert decoder.decode([record(3, keys([*names, names[0]]))]).rejections[0].field == names[0]


def test_many_keys_take_no_more_memory_each_time(decoder: Decoder) -> None:
    many = record(1, keys([f"k{number}" for number in range(400_000)]))
    same = record(1, ',"again":1' * 400_000)

    def decode_all() -> float:
        for value in (many, same, record(2, ',"x":1')):
            decoder.decode([value])
        return resident_mb()

    decode_all()
    before = decode_all()
    for _ in range(4):
        after = decode_all()
    assert after - before < 12  # half a table of so many keys
