from __future__ import annotations

import math

import numpy as np
import pytest

from saker.engine.records.decode import Decoded
from tests.engine.records.decoders import CONTRACT, DECODERS, make_decoder
from tests.engine.records.nasty import GOOD, NASTY, Expected


def check(decoded: Decoded, position: int, expected: Expected) -> None:
    places = decoded.indices.tolist()
    if isinstance(expected, dict):
        assert position in places, decoded.rejections
        row = decoded.matrix[places.index(position)]
        wanted = np.array([expected.get(feature.name, math.nan) for feature in CONTRACT.features], np.float32)
        assert row.tobytes() == wanted.tobytes(), (row, wanted)
    else:
        assert [(r.reason, r.field) for r in decoded.rejections if r.index == position] == [expected]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("value", "expected"), [case[1:] for case in NASTY], ids=[case[0] for case in NASTY])
def test_by_itself_and_between_others(name: str, value: bytes | None, expected: Expected) -> None:
    decoder = make_decoder(name)
    check(decoder.decode([value]), 0, expected)
    # Now the decoder has learned from the good ones and, where it could, from this one.
    decoded = decoder.decode([GOOD[0], value, GOOD[1], value, GOOD[0]])
    check(decoded, 1, expected)
    check(decoded, 3, expected)
    places = decoded.indices.tolist()
    assert {0, 2, 4} <= set(places)
    assert [decoded.ids[places.index(i)] for i in (0, 2)] == [b"1", b'"a"']
