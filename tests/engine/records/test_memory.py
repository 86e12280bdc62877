"""What is taken is given back: decoders that come and go, rejections, records of all sizes."""

from __future__ import annotations

import gc
import random
import sys

import pytest

from saker.engine.records.encode import Encoder
from tests.engine.records.decoders import DECODERS, NATIVE, make_decoder
from tests.engine.records.nasty import GOOD, NASTY
from tests.support.memory import ALLOWED_MB, resident_mb


@pytest.mark.parametrize("name", NATIVE)
def test_memory_stays_where_it_is(name: str) -> None:
    values = [value for _, value, _ in NASTY if value is None or len(value) < 5000]
    rng = random.Random(4)
    encoder = Encoder("id", 0.5, "m")

    def work(times: int) -> None:
        for _ in range(times):
            decoder = make_decoder(name)
            for _ in range(3):
                rng.shuffle(values)
                decoded = decoder.decode(values)
                encoder.encode(decoded.ids, decoded.matrix[:, 1].astype("f8"), 1)

    work(20)
    gc.collect()
    before = resident_mb()
    work(300)
    gc.collect()
    assert resident_mb() - before < ALLOWED_MB


@pytest.mark.parametrize("name", DECODERS)
def test_no_references_are_lost_or_kept(name: str) -> None:
    values = [bytes(bytearray(value)) for value in (*GOOD, b'{"id":true}', b"[", b'{"id":1,"amount":1e39}')]
    decoder = make_decoder(name)
    before = [sys.getrefcount(value) for value in values]
    for _ in range(50):
        decoder.decode(values)
    assert [sys.getrefcount(value) for value in values] == before


@pytest.mark.parametrize("name", DECODERS)
def test_the_matrix_is_one_buffer_that_is_used_again(name: str) -> None:
    decoder = make_decoder(name)
    first = decoder.decode([GOOD[0]] * 8).matrix
    kept = first.copy()
    second = decoder.decode([GOOD[1]] * 4).matrix
    assert second.base is first.base
    assert first[:4].tobytes() == second.tobytes() != kept[:4].tobytes()
    larger = decoder.decode([GOOD[0]] * 100).matrix  # a new buffer: the old views stay as they are
    assert first[:4].tobytes() == second.tobytes()
    assert larger[:8].tobytes() == kept.tobytes()
