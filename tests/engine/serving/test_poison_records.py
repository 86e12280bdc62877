"""Records that workers died of, found by the marker of what they were scoring."""

from __future__ import annotations

from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.serving.poison_records import CrashHistory, SuspectRecords, why_given_up


def died(
    crashes: CrashHistory, positions: dict[tuple[str, int], int], *, alone: bool = False, refused: int = 0
) -> tuple[int, int] | None:
    marker = InFlightMarker()
    marker.note(positions, alone=alone, refused=refused)
    return crashes.note(marker)


def test_a_worker_that_scored_nothing_died_of_nothing() -> None:
    marker, crashes = InFlightMarker(), CrashHistory()
    marker.note({("raw", 1): 7}, alone=False)
    marker.done()
    assert crashes.note(marker) is None
    assert crashes.suspects() == SuspectRecords()


def test_a_batch_makes_its_records_suspects_and_a_record_alone_is_given_up_at_its_second_death() -> None:
    crashes = CrashHistory()
    assert died(crashes, {("raw", 1): 700, ("raw", 2): 40}) is None
    assert crashes.suspects() == SuspectRecords({1: 700, 2: 40})
    assert died(crashes, {("raw", 1): 651}, alone=True) is None
    assert crashes.suspects().given_up == {}
    assert died(crashes, {("raw", 1): 651}, alone=True) == (1, 650)
    assert crashes.suspects() == SuspectRecords({1: 700, 2: 40}, {(1, 650): 0})
    assert died(crashes, {("raw", 1): 651}, alone=True) is None  # it was told


def test_a_record_whose_result_is_refused_alone_is_given_up_at_once() -> None:
    crashes = CrashHistory()
    assert died(crashes, {("raw", 1): 700}, refused=87) is None
    assert died(crashes, {("raw", 1): 651}, alone=True, refused=87) == (1, 650)
    assert crashes.suspects() == SuspectRecords({1: 700}, {(1, 650): 87})
    assert why_given_up(87).reason == "undeliverable"
    assert why_given_up(0).reason == "worker_crash"


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
