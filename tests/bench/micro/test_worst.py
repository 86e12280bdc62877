"""The search for the worst record tries each kind, again the same ones, and all of them go through the decoder."""

from __future__ import annotations

import pytest

from saker.bench.micro.worst import KINDS, SIZES, batch, cost, search


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_a_kind(kind: str) -> None:
    values = batch(kind, 3, SIZES[0])
    assert values == batch(kind, 3, SIZES[0])
    assert all(values)
    assert cost(values) > 0


def test_every_kind_is_searched() -> None:
    found = list(search(seconds=0.1, seed=1))
    assert [one.kind for one in found] == list(KINDS)
    assert all(one.ns_a_byte > 0 and one.size in SIZES for one in found)
