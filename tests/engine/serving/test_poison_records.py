"""Records that workers died of, found by the marker of what they were scoring."""

from __future__ import annotations

from saker.engine.serving.poison_records import CrashHistory, InFlightMarker, SuspectRecords


def died(crashes: CrashHistory, positions: dict[tuple[str, int], int], *, alone: bool = False) -> tuple[int, int] | None:
    marker = InFlightMarker()
    marker.scoring(positions, alone=alone)
    return crashes.note(marker)


def test_a_worker_that_scored_nothing_died_of_nothing() -> None:
    marker, crashes = InFlightMarker(), CrashHistory()
    marker.scoring({("raw", 1): 7}, alone=False)
    marker.done()
    assert crashes.note(marker) is None
    assert crashes.suspects() == SuspectRecords()


def test_a_batch_makes_its_records_suspects_and_a_record_alone_is_given_up_at_its_second_death() -> None:
    crashes = CrashHistory()
    assert died(crashes, {("raw", 1): 700, ("raw", 2): 40}) is None
    assert crashes.suspects() == SuspectRecords({1: 700, 2: 40})
    assert died(crashes, {("raw", 1): 651}, alone=True) is None
    assert crashes.suspects().given_up == frozenset()
    assert died(crashes, {("raw", 1): 651}, alone=True) == (1, 650)
    assert crashes.suspects() == SuspectRecords({1: 700, 2: 40}, frozenset({(1, 650)}))
    assert died(crashes, {("raw", 1): 651}, alone=True) is None  # it was told


def test_suspicion_ends_behind_the_last_of_them() -> None:
    suspects = SuspectRecords({1: 700})
    assert not suspects.among({("raw", 0): 900})
    assert suspects.among({("raw", 0): 950, ("raw", 1): 500})
    assert suspects.among({("raw", 1): 700})
    assert not suspects.among({("raw", 1): 1200})


def test_more_partitions_than_there_is_room_for() -> None:
    crashes = CrashHistory()
    died(crashes, {("raw", number): 1 for number in range(5_000)})
    assert len(crashes.suspects().behind) == 512
