"""What workers died of: told by what stood in their journal."""

from __future__ import annotations

from saker.engine.serving.poison_records import CrashHistory, InFlightMarker, SuspectRecords


def died(deaths: CrashHistory, positions: dict[tuple[str, int], int], *, alone: bool = False) -> tuple[int, int] | None:
    journal = InFlightMarker()
    journal.scoring(positions, alone=alone)
    return deaths.note(journal)


def test_a_worker_that_scored_nothing_died_of_nothing() -> None:
    journal, deaths = InFlightMarker(), CrashHistory()
    journal.scoring({("raw", 1): 7}, alone=False)
    journal.done()
    assert deaths.note(journal) is None
    assert deaths.suspects() == SuspectRecords()


def test_a_batch_makes_its_records_suspects_and_a_record_alone_is_given_up_at_its_second_death() -> None:
    deaths = CrashHistory()
    assert died(deaths, {("raw", 1): 700, ("raw", 2): 40}) is None
    assert deaths.suspects() == SuspectRecords({1: 700, 2: 40})
    assert died(deaths, {("raw", 1): 651}, alone=True) is None
    assert deaths.suspects().given_up == frozenset()
    assert died(deaths, {("raw", 1): 651}, alone=True) == (1, 650)
    assert deaths.suspects() == SuspectRecords({1: 700, 2: 40}, frozenset({(1, 650)}))
    assert died(deaths, {("raw", 1): 651}, alone=True) is None  # it was told


def test_suspicion_ends_behind_the_last_of_them() -> None:
    suspects = SuspectRecords({1: 700})
    assert not suspects.among({("raw", 0): 900})
    assert suspects.among({("raw", 0): 950, ("raw", 1): 500})
    assert suspects.among({("raw", 1): 700})
    assert not suspects.among({("raw", 1): 1200})


def test_more_partitions_than_there_is_room_for() -> None:
    deaths = CrashHistory()
    died(deaths, {("raw", number): 1 for number in range(5_000)})
    assert len(deaths.suspects().behind) == 512
