"""The fuzz loop finds what it is there to find, and what it found before stays mended."""

from __future__ import annotations

import random

from saker.engine.contract import Feature
from saker.engine.records.decode import Decoder
from tests.engine.records import fuzz
from tests.engine.records.decoders import CONTRACT, make_decoder


def test_what_is_kept_is_decoded_alike() -> None:
    values = fuzz.kept()
    assert fuzz.differ(values, fuzz.decoders(), make_decoder("reference"), ask=True) == []


def test_a_decoder_that_is_off_is_found() -> None:
    other = Feature("must", "category", vocabulary=("y", "n"), required=True)
    wrong = Decoder(type(CONTRACT)((*CONTRACT.features[:-1], other), id_field="id"))
    rng, values = random.Random(1), fuzz.corpus()
    batch = [fuzz.mutate(rng, values) for _ in range(fuzz.BATCH)]
    native = {"right": make_decoder("baseline"), "wrong": wrong}
    assert fuzz.differ(batch, native, make_decoder("reference"), ask=True) == ["wrong"]
    assert fuzz.differ(batch, native, make_decoder("reference"), ask=False) == ["wrong"]
