"""Decimal text to float32 by way of float64, each rounded to nearest, against Python's float and numpy's cast."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from saker.engine.contract import Contract, Feature
from saker.engine.records.decode import Decoder
from tests.engine.records.decoders import NATIVE, make_decoder

PER_RECORD = 50
WIDE = Contract(tuple(Feature(f"f{i}") for i in range(PER_RECORD)), id_field="id")
FORMS = 6


def random_text(rng: random.Random) -> str:
    sign = rng.choice(("", "-"))
    form = rng.randrange(FORMS)
    if form == 0:  # what programs print
        return repr(struct.unpack("<f", rng.randbytes(4))[0])
    if form == 1:
        return sign + repr(abs(rng.gauss(0, 10.0 ** rng.randint(-10, 15))))
    if form == 2:
        return sign + str(rng.randrange(10 ** rng.randint(1, 25)))
    if form == 3:
        return f"{sign}{rng.randrange(10 ** rng.randint(1, 10))}.{''.join(rng.choices('0123456789', k=rng.randint(1, 22)))}"
    if form == 4:
        return f"{sign}{rng.randrange(1, 10 ** rng.randint(1, 20))}e{rng.randint(-60, 30)}"
    return f"{sign}0.{'0' * rng.randint(0, 20)}{rng.randrange(10 ** rng.randint(1, 20))}"


def halfway_texts(rng: random.Random, count: int) -> Iterator[str]:
    """The exact decimal expansions of points half way between two floats of either width, and their close neighbours."""
    for _ in range(count):
        bits = rng.randrange(1, 0x7F7FFFFF)
        low, high = struct.unpack("<ff", struct.pack("<II", bits, bits + 1))
        half = (low + high) / 2  # exact in float64
        yield format(half, ".17g")
        yield format(half, ".60g")
        yield format(half, ".60g").replace("e", "1e")  # just above, if it has an exponent
        double = abs(rng.gauss(0, 1))
        above = np.nextafter(double, np.inf)
        middle = (Fraction(double) + Fraction(float(above))) / 2
        text = str(middle.numerator * 10**80 // middle.denominator).rjust(81, "0")
        yield text[:-80] + "." + text[-80:].rstrip("0") + "0"


def compare(decoder: Decoder, texts: list[str], quote: str = "") -> None:
    with np.errstate(all="ignore"):
        texts = [t for t in texts if "n" not in t and np.isfinite(np.float32(float(t)))]
        texts += ["0"] * (-len(texts) % PER_RECORD)
        wanted = np.array([float(text) for text in texts]).astype(np.float32)
    values = []
    for start in range(0, len(texts), PER_RECORD):
        fields = ",".join(f'"f{i}":{quote}{t}{quote}' for i, t in enumerate(texts[start : start + PER_RECORD]))
        values.append(f'{{"id":1,{fields}}}'.encode())
    decoded = decoder.decode(values)
    assert decoded.rejections == []
    assert decoded.handed_over == 0
    found = decoded.matrix.ravel()
    wrong = np.flatnonzero(found.view(np.uint32) != wanted.view(np.uint32))
    assert not len(wrong), [(texts[i], found[i], wanted[i]) for i in wrong[:5]]


@pytest.fixture(params=NATIVE)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return make_decoder(request.param, WIDE)


@pytest.mark.parametrize("quote", ["", '"'])
def test_random_decimals(decoder: Decoder, quote: str) -> None:
    rng = random.Random(20261124)
    for _ in range(4):
        compare(decoder, [random_text(rng) for _ in range(20_000)], quote)


def test_half_way(decoder: Decoder) -> None:
    compare(decoder, list(halfway_texts(random.Random(1), 3000)))


@pytest.mark.parametrize("quote", ["", '"'])
def test_every_length_and_place_of_the_point(decoder: Decoder, quote: str) -> None:
    digits = "9876543210123456789012345678901234567890"
    texts = []
    for length in range(1, 40):
        texts += [digits[:length], "-" + digits[:length]]
        for point in range(1, length):
            texts += [f"{digits[:point]}.{digits[point:length]}", f"-0.{'0' * point}{digits[:length]}"]
    compare(decoder, texts, quote)
