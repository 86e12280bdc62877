"""Few records at a time go without a linger, many with one; one burst among few is no reason to change to and fro."""

from __future__ import annotations

import itertools

from engine.pace import MANY, QUICK, Pace


def places(batches: list[int]) -> list[int]:
    pace, found = Pace(2), []
    for records in batches:
        pace.note(records)
        found.append(pace.place)
    return found


def test_a_backlog_changes_it_within_two_batches_and_quiet_changes_it_back() -> None:
    found = places([1] * 100 + [500] * 20 + [1] * 300)
    assert found[:100] == [QUICK] * 100
    assert found[102:120] == [MANY] * 18
    assert found[-1] == QUICK
    assert sum(before != after for before, after in itertools.pairwise(found)) == 2


def test_between_the_bounds_it_stays_as_it_is() -> None:
    assert set(places([18] * 500)) == {QUICK}
    assert set(places([100] * 50 + [18] * 500)[10:]) == {MANY}
