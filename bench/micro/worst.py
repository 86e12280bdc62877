"""Searches for the record that takes longest to decode for its size: `saker bench worst`.

Time must grow with the size of a record only; otherwise a sender could stall a worker. The gate
compares the worst kind of two trees.
"""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from saker.bench.data.stream_records import contract, records
from saker.engine.contract import Contract
from saker.engine.records.decode import Decoder

_WIDTH, _BATCH, _REPEATS = 50, 8, 3
SIZES = (1_000, 16_000, 250_000)


def _text(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(string.ascii_letters, k=length))


def _with(good: bytes, fields: bytes) -> bytes:
    return good[:-1] + b"," + fields + b"}"


def _of_id(good: bytes, of: Contract, identifier: bytes) -> bytes:
    start = good.index(of.id_field.encode()) + len(of.id_field) + 2
    return good[:start] + identifier + good[good.index(b",", start) :]


def _unknown_keys(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    longest = rng.choice([2, 8, 40, 300])
    count = size // (longest + 6)
    return _with(good, b",".join(b'"%b":1' % _text(rng, rng.randint(1, longest)).encode() for _ in range(max(count, 1))))


def _escaped_keys(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    escape = rng.choice([b"\\u0041", b"\\n", b"\\ud83d\\ude00"])
    keys = max(size // (len(escape) * 4 + 8), 1)
    return _with(good, b",".join(b'"%b%d":1' % (escape * 4, number) for number in range(keys)))


def _shuffled(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    fields = list(json.loads(good).items()) + [(_text(rng, 12), 1) for _ in range(max((size - len(good)) // 18, 0))]
    rng.shuffle(fields)
    return json.dumps(dict(fields), separators=rng.choice([(",", ":"), (", ", ": "), (" , ", " : ")])).encode()


def _numbers(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    digits = rng.choice([17, 18, 40, 770, 1_100, size])
    literals = [b"9" * digits, b"0." + b"0" * digits + b"1", b"1" * digits + b"e-%d" % digits, b"2." + b"5" * digits]
    names = [name for name in json.loads(good) if name.startswith("V")]
    value = good
    for name in names[: max(size // digits, 1)]:
        start = value.index(b'"%b":' % name.encode()) + len(name) + 3
        value = value[:start] + rng.choice(literals) + value[value.index(b",", start) :]
    return value


def _identifier(rng: random.Random, of: Contract, good: bytes, size: int) -> bytes:
    escape = rng.choice([b"x", b"\\u00e9", b'\\"', b"\\ud83d\\ude00", "é".encode()])
    return _of_id(good, of, b'"%b"' % (escape * (size // len(escape))))


def _category(rng: random.Random, of: Contract, good: bytes, size: int) -> bytes:
    name = rng.choice([feature.name for feature in of.features if feature.kind == "category"]).encode()
    start = good.index(b'"%b":' % name) + len(name) + 3
    ends = [at for at in (good.find(b",", start), len(good) - 1) if at > 0]
    escape = rng.choice([b"x", b"\\u0061", b"\\\\"])
    return good[:start] + b'"%b"' % (escape * (size // len(escape))) + good[min(ends) :]


def _nested(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    inner = rng.choice([b"[" * 900 + b"]" * 900, b"[1,2,3]", b'{"a":{"b":[null]}}', b'"\\\\"'])
    return _with(good, b",".join(b'"n%d":%b' % (number, inner) for number in range(max(size // len(inner), 1))))


def _space(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    return good.replace(b",", rng.choice([b" ", b"\n", b"\t"]) * max(size // good.count(b","), 1) + b",")


def _invalid(rng: random.Random, _: Contract, good: bytes, size: int) -> bytes:
    unterminated = [b'"' + b'\\"' * (size // 2), b"[" * size, b"{" * size, b'"k":' * (size // 4)]
    tail = rng.choice([*unterminated, b"\xff" * size, b"1" * size])
    return rng.choice([good[:-1] + b"," + tail, tail, good[:-1] + b" " * size, b" " * size + good[1:]])


KINDS: dict[str, Callable[[random.Random, Contract, bytes, int], bytes]] = {
    "many unknown keys": _unknown_keys,
    "escaped keys": _escaped_keys,
    "fields in another order each": _shuffled,
    "long numbers": _numbers,
    "long identifier": _identifier,
    "long category": _category,
    "nested values": _nested,
    "white space": _space,
    "invalid": _invalid,
}


class Found(NamedTuple):
    """The worst of a kind: ns of CPU a byte, and the seed and size that make it."""

    kind: str
    ns_a_byte: float
    seed: int
    size: int


def batch(kind: str, seed: int, size: int) -> list[bytes]:
    rng, of = random.Random(seed), contract(_WIDTH)  # noqa: S311 - the same records each time
    return [KINDS[kind](rng, of, good, size) for good in records(of, _BATCH)]


def usual() -> list[bytes]:
    """What a decoder is for."""
    return records(contract(_WIDTH), 256)


def cost(values: list[bytes]) -> float:
    """ns of CPU a byte, of decoders that have seen ordinary records: the best of a few."""
    of = contract(_WIDTH)
    return cost_of(lambda: Decoder(of), usual(), values)


def cost_of(make: Callable[[], Decoder], seen: list[bytes], values: list[bytes]) -> float:
    """The same of any decoder; seen: ordinary records."""
    best = float("inf")
    for _ in range(_REPEATS):
        decoder = make()
        decoder.decode(seen)
        started = time.thread_time_ns()
        decoder.decode(values)
        best = min(best, time.thread_time_ns() - started)
    return best / sum(map(len, values))


def search(seconds: float, seed: int) -> Iterator[Found]:
    """The worst of each kind, each searched for as long."""
    rng = random.Random(seed)  # noqa: S311 - of no secret
    for kind in KINDS:
        worst = Found(kind, 0.0, 0, 0)
        until = time.monotonic() + seconds / len(KINDS)
        while time.monotonic() < until or not worst.size:
            chosen, size = rng.randrange(2**32), rng.choice(SIZES)
            worst = max(worst, Found(kind, cost(batch(kind, chosen, size)), chosen, size), key=lambda found: found.ns_a_byte)
        yield worst


def worst(variants: int = 3) -> float:
    """ns of CPU a byte of the worst among a few records of each kind, always the same ones."""
    return max(cost(batch(kind, seed, SIZES[1])) for kind in KINDS for seed in range(variants))
