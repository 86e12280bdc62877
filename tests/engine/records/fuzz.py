"""A mutation loop over the row decoder.

`python -m tests.engine.records.fuzz [--seconds 20] [--seed S] [--reference-share 0.1]`

Records of a corpus (nasty.py, and what corpus/ keeps of earlier finds) are damaged at random and decoded in batches by every
variant, which must agree with each other, and with the reference on a share of the batches. Decoders live long, so what they
learn comes from damaged records too. Meant for a sanitized build (`make sanitize`, `make fuzz`). A batch on which they differ
is written to corpus/ and stays there, mended or not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saker.engine.contract import Contract
from saker.engine.records.decode import Decoded, Decoder
from saker.engine.records.rejection import NOT_JSON, Rejection
from tests.engine.records.decoders import CONTRACT, DECODERS, EXTENSION, NESTED, make_decoder
from tests.engine.records.nasty import NASTY
from tests.support.collisions import pairs

CORPUS = Path(__file__).parent / "corpus"
BATCH = 64
TOKENS = [
    b'"', b"\\", b"\\u", b"\\ud83d\\ude00", b",", b":", b"{", b"}", b"[", b"]", b"null", b"true", b"1e5", b"-", b".", b"0",
    b"9" * 20, b"1e400", b" ", b"\n", b"\0", b"\xff", b"\xc3\xa9", b"\xe2\x82\xac", b"\xf0\x9f\x98\x80", b'"id":', b'"ratio":',
    b'"x":', b'""', b'"zz":1,', b'"card":{', b'"items":[', b"},", b'"t":"2024-02-29T01:02:03.5Z"',
]  # fmt: skip


def kept() -> list[bytes]:
    """The records of every batch in corpus/, one a line, each as Python writes bytes in hexadecimal."""
    return [bytes.fromhex(line) for path in sorted(CORPUS.glob("*.hex")) for line in path.read_text().splitlines()]


def colliding() -> list[bytes]:
    """Records of keys that hash alike, half of them with one of each pair only."""
    assert EXTENSION
    found = pairs(EXTENSION, 8)
    every = [key for pair in found for key in pair]
    record = '{"id":1,"amount":2,%s,"must":"y"}'
    chosen = [every, every[::-1], [one for one, _ in found], [other for _, other in found]] * 5
    return [(record % ",".join(f"{json.dumps(key)}:1" for key in keys)).encode() for keys in chosen]


def corpus() -> list[bytes]:
    full = b'{"id":%d,"ratio":-1.25,"amount":12.5,"device":"web","card":4242,"t":86400,"must":"y"}'
    long_key = b'{"id":1,"%b":[1],"ratio":2,"amount":3,"must":"n"}'
    return [
        *(value for _, value, _ in NASTY if value and len(value) < 2000),
        *[long_key % (b"k" * n) for n in (28, 60, 100, 300)] * 5,
        *colliding(),
        *(full % i for i in range(40)),
        *((full % i).replace(b",", b", ").replace(b":", b": ") for i in range(20)),
        *((full % i).replace(b":", b": ") for i in range(10)),
        *kept(),
    ]


def nested_corpus() -> list[bytes]:
    """Records for NESTED in four spellings, with what is optional there, null or absent."""
    full = {
        "meta": {"id": 7, "x": [1]},
        "ratio": 1.5,
        "card": {
            "amount": 12.5, "holder": {"device": "web", "home": {"a_name_that_is_longer_than_any_token_can_be": 3}},
            "number": 4242, "a.b": 1, "must": "y", "unknown": {"amount": 1},
        },
        "at": {"t": 86_400_000}, "since": "2024-02-29T01:02:03.5Z", "items": [{"price": 3}, None, {"kind": "x"}],
        "grid": [[], [1]], "card.amount": 9,
    }  # fmt: skip
    styles: list[dict[str, Any]] = [{"separators": (",", ":")}, {}, {"indent": 1}, {"separators": (" ,", " : ")}]
    sparse = full | {"card": {"amount": 1, "must": "n", "holder": None}, "items": None, "at": {}}
    late = {key: full[key] for key in reversed(full)}
    return [json.dumps(record, **style).encode() for record in (full, sparse, late) for style in styles] * 5


CORPORA: list[tuple[Contract, Callable[[], list[bytes]]]] = [(CONTRACT, corpus), (NESTED, nested_corpus)]


def mutate(rng: random.Random, values: list[bytes]) -> bytes:
    value = bytearray(rng.choice(values))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(value) + 1)
        action = rng.choice(("change", "remove", "token", "double", "splice", "cut"))
        if action == "change":
            value[at : at + 1] = bytes([rng.randrange(256)])
        elif action == "remove":
            del value[at : at + rng.randint(1, 8)]
        elif action == "token":
            value[at:at] = rng.choice(TOKENS)
        elif action == "double":
            start = rng.randrange(len(value) + 1)
            value[at:at] = value[start : start + rng.randint(1, 40)]
        elif action == "splice":
            other = rng.choice(values)
            value[at:] = other[rng.randrange(len(other)) :]
        else:
            del value[at:]
    return bytes(value)


class Unread:
    """Stands in for the reference where only the native code is of interest: ten times the records in the same time."""

    def decode(self, index: int, _value: object, *_buffers: object) -> Rejection:
        return NOT_JSON.of(index)


def summary(decoded: Decoded) -> object:
    return decoded.matrix.tobytes(), decoded.indices.tolist(), list(decoded.ids), decoded.rejections


def keep(batch: list[bytes]) -> Path:
    lines = "\n".join(value.hex() for value in batch) + "\n"
    path = CORPUS / f"{hashlib.sha256(lines.encode()).hexdigest()[:12]}.hex"
    path.write_text(lines)
    return path


def decoders(contract: Contract = CONTRACT) -> dict[str, Decoder]:
    return {name: make_decoder(name, contract) for name in DECODERS if name != "reference"}


def differ(batch: list[bytes], native: dict[str, Decoder], reference: Decoder, *, ask: bool) -> list[str]:
    """The decoders that do not agree with the first one, or with the reference if it is asked."""
    for decoder in native.values():
        decoder._reference = reference._reference if ask else Unread()  # type: ignore[assignment]
    decoded = {name: decoder.decode(batch) for name, decoder in native.items()}
    outcomes = {name: summary(found) for name, found in decoded.items()}
    if not ask:
        expected = next(iter(outcomes.values()))
        return [name for name, outcome in outcomes.items() if outcome != expected]
    referred = reference.decode(batch)
    expected, most = summary(referred), len(referred.rejections)  # an accepted record would take fifty times as long
    return [name for name, outcome in outcomes.items() if outcome != expected or decoded[name].handed_over > most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--reference-share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    corpora = [(contract, records()) for contract, records in CORPORA]
    living = [(values, decoders(contract), make_decoder("reference", contract)) for contract, values in corpora]
    done = compared = 0
    until = time.monotonic() + asked.seconds
    while time.monotonic() < until:
        at = rng.randrange(len(living))
        values, native, reference = living[at]
        batch = [mutate(rng, values) for _ in range(BATCH)]
        ask = rng.random() < asked.reference_share
        if wrong := differ(batch, native, reference, ask=ask):
            sys.exit(f"seed {asked.seed}, after {done:,} records: {', '.join(wrong)} differ; kept in {keep(batch)}")
        done += BATCH
        compared += BATCH * ask
        if rng.random() < 0.001:
            living[at] = (values, decoders(corpora[at][0]), reference)
    sys.stdout.write(f"seed {asked.seed}: {done:,} records, {compared:,} compared with the reference, no difference\n")


if __name__ == "__main__":
    main()
