"""Millions of damaged records of JSON, Avro and Protobuf: the native variants against each other, and none reads outside.

`python -m tests.engine.records.fuzz_variants [--records 1000000] [--seed S]`

    a schema and its records --numpy--> thousands of damaged copies of each --every variant--> the same rows, faults and texts

Made for a sanitized build, whose buffers have exactly the size of their record. A share of the copies is compared with the
reference, too. An execution is one record in one variant.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from saker.engine.contract import Contract
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import ID_BYTES, JSON, Format
from tests.engine.records.avro_cases import Case
from tests.engine.records.decoders import NATIVE
from tests.engine.records.fuzz import CORPORA
from tests.engine.records.protobuf_cases import ProtoCase

COPIES, BASES = 4_000, 8
REFERENCE_SHARE = 0.002


class Bases(NamedTuple):
    """A contract, how its records are written, and some of them."""

    contract: Contract
    format: Format
    values: Sequence[bytes]


def bases(seed: int) -> Iterator[Bases]:
    """One of each format."""
    rng = np.random.default_rng(seed)
    contract, corpus = CORPORA[seed % len(CORPORA)]
    found = corpus()
    yield Bases(contract, JSON, [found[at] for at in rng.integers(len(found), size=BASES)])
    for case in (Case(seed), ProtoCase(seed)):
        yield Bases(case.contract, case.format, [case.record() for _ in range(BASES)])


def copies(rng: np.random.Generator, value: bytes, count: int) -> list[bytes]:
    """The record with some bytes changed, and perhaps its end cut off or repeated."""
    n = len(value)
    if n == 0:
        return [value] * count
    made = np.tile(np.frombuffer(value, np.uint8), (count, 2))
    changes = rng.integers(0, 4, size=count)
    for round_ in range(3):
        rows = np.flatnonzero(changes > round_)
        places = rng.integers(0, n, size=len(rows))
        kinds = rng.integers(0, 4, size=len(rows))
        old = made[rows, places]
        new = rng.integers(0, 256, size=len(rows)).astype(np.uint8)
        bits = (1 << rng.integers(0, 8, size=len(rows))).astype(np.uint8)
        special = np.array([0, 0x7F, 0x80, 0xFF], np.uint8)[rng.integers(0, 4, size=len(rows))]
        made[rows, places] = np.choose(kinds, [new, old ^ bits, special, old + np.uint8(1)])
    lengths = np.where(rng.random(count) < 0.2, rng.integers(0, 2 * n + 1, size=count), n).tolist()
    flat, width = made.tobytes(), 2 * n
    return [flat[at * width : at * width + length] for at, length in enumerate(lengths)]


def outcome(decoder: Decoder, values: list[bytes]) -> object:
    """What the native decoder makes of each record by itself: rows, faults, texts, and what it leaves to the reference."""
    kernel = decoder._native
    assert kernel is not None
    n, width = len(values), len(decoder.contract.features)
    for schema in {schema for _, schema in decoder.unknown_schemas(values)}:
        decoder.learn(schema)
    matrix = np.zeros((n, width), np.float32)
    indices, starts, lengths = np.zeros(n, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int64)
    calls: list[object] = []
    inputs = np.zeros((n, decoder.layout.n_words if decoder.layout else 0), np.int64)
    accepted, handed_over, texts = kernel.decode(
        values,
        matrix,
        indices,
        starts,
        lengths,
        inputs,
        lambda index, _: calls.append(index),
        lambda *fault: calls.append(fault),
    )
    rest = (part[:accepted].tobytes() for part in (matrix, indices, starts, lengths, inputs))
    return accepted, handed_over, texts, calls, *rest


def run(records: int, seed: int, say: Callable[[str], object]) -> str:
    """What differs first, or nothing."""
    done, compared, started, first = 0, 0, time.monotonic(), seed
    while done < records:
        for of in bases(seed):
            rng = np.random.default_rng((seed, 1))
            decoders = [Decoder(of.contract, "auto", of.format, variant=variant) for variant in NATIVE]
            reference = Decoder(of.contract, "off", of.format)
            for value in of.values:
                # A damaged id is another schema, which has to be learned first: fuzz_binary.py has those.
                kept = ID_BYTES if of.format.schemas is not None else 0
                values = [value[:kept] + copy for copy in copies(rng, value[kept:], COPIES)]
                found = [outcome(decoder, values) for decoder in decoders]
                if any(other != found[0] for other in found):
                    return f"{of.format.kind}, seed {seed}: variants differ"
                chosen = [values[at] for at in np.flatnonzero(rng.random(COPIES) < REFERENCE_SHARE).tolist()]
                expected, got = reference.decode(chosen), decoders[0].decode(chosen)
                same = expected.matrix.tobytes() == got.matrix.tobytes() and list(expected.ids) == list(got.ids)
                if not same or expected.rejections != got.rejections:
                    return f"{of.format.kind}, seed {seed}: {NATIVE[0]} differs from the reference"
                compared += len(chosen)
                done += COPIES
        seed += 1
        if seed % 20 == 0:
            say(f"{done * len(NATIVE):,} executions, {time.monotonic() - started:.0f} s")
    executions = done * len(NATIVE)
    say(f"seeds {first} to {seed - 1}: {executions:,} executions of {done:,} records, {compared:,} compared with the reference")
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    asked = parser.parse_args()
    if wrong := run(asked.records, asked.seed, lambda text: sys.stderr.write(f"{text}\n")):
        sys.exit(wrong)


if __name__ == "__main__":
    main()
