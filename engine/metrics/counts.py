"""The counts of a worker, which its pool adds up.

A worker counts in plain numbers and sends what came since its last report over its pipe. So nothing is lost when a worker dies,
and no file grows. declared.py names the metrics, exporter.py serves them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STAGES = ("decode", "score", "encode", "produce", "acknowledge")
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SCORES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.98, 0.99, 1.0)


class Acknowledged(NamedTuple):
    """One batch. at: seconds since 1970. timestamps_ms (n,) of its records; scores (m,) of those that have one, m <= n."""

    at: float
    timestamps_ms: NDArray[np.int64]
    stage_seconds: Mapping[str, float]
    threshold: float
    scores: NDArray[np.float64]


#: A batch that the transport answered, in numbers (struct Told of fast_path.c): how many records, seconds since 1970, and
#: the seconds of each stage.
ANSWERED = ("records", "at", *STAGES)


class Answered(NamedTuple):
    """Many such batches (b, 7), and of their n records timestamps_ms (n,), scores (n,) and how many are flagged."""

    batches: NDArray[np.float64]
    timestamps_ms: NDArray[np.int64]
    scores: NDArray[np.float64]
    flagged: int


@dataclass
class Histogram:
    """Counts of values up to each bound (inclusive), and above the last; and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, values: NDArray[np.float64]) -> None:
        """values (n,), none of them NaN."""
        places = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts)).tolist()
        self.counts = [count + more for count, more in zip(self.counts, places, strict=True)]
        self.total += float(values.sum())

    def add(self, other: Histogram) -> None:
        self.counts = [count + more for count, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def buckets(self) -> list[tuple[str, float]]:
        names = [str(float(bound)) for bound in self.bounds] + ["+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


@dataclass
class HistoryCounts:
    """Of velocity features. replayed and grown are counts since the last report, the others are as they are.

    grown: evicted (keys), evicted_live (those of them whose window had not passed), without_time and incomplete (records).
    snapshot_at: time of the oldest of the partitions' last snapshots, in seconds since 1970; None without velocity features.
    """

    keys: int = 0
    bytes: int = 0
    replaying: int = 0
    snapshot_at: float | None = None
    snapshot_seconds: float = 0.0
    snapshot_failures: int = 0
    replayed: int = 0
    grown: Counter[str] = field(default_factory=Counter)

    def add(self, other: HistoryCounts) -> None:
        """What only grows."""
        self.replayed += other.replayed
        self.snapshot_failures += other.snapshot_failures
        self.grown.update(other.grown)


@dataclass
class Counts:
    """Counts of a worker since its last report, or their sums in the parent. `in_flight` is the newest value, not a sum."""

    scored: int = 0
    flagged: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    scores: Histogram = field(default_factory=lambda: Histogram(_SCORES))
    latency: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    stages: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram(_STAGE_SECONDS) for stage in STAGES})
    batch_records: Histogram = field(default_factory=lambda: Histogram(_RECORDS))
    deleted: int = 0
    late: int = 0
    blank: int = 0
    rebalances: int = 0
    in_flight: int = 0
    history: HistoryCounts = field(default_factory=HistoryCounts)

    def add(self, other: Counts) -> None:
        self.history.add(other.history)
        self.scored += other.scored
        self.flagged += other.flagged
        self.failed.update(other.failed)
        self.skipped.update(other.skipped)
        self.deleted += other.deleted
        self.late += other.late
        self.blank += other.blank
        self.rebalances += other.rebalances
        self.scores.add(other.scores)
        self.latency.add(other.latency)
        self.batch_records.add(other.batch_records)
        for stage, histogram in self.stages.items():
            histogram.add(other.stages[stage])

    def add_batches(self, batches: Sequence[Acknowledged]) -> None:
        """Many at once: of a batch of one record its own counting would take longer than its scoring."""
        if not batches:
            return
        sizes = np.array([len(batch.timestamps_ms) for batch in batches])
        self._add_times(sizes, np.array([batch.at for batch in batches]), np.concatenate([b.timestamps_ms for b in batches]))
        for stage, histogram in self.stages.items():
            seconds = [batch.stage_seconds[stage] for batch in batches if stage in batch.stage_seconds]
            histogram.observe(np.array(seconds))
        for threshold, same in groupby(batches, key=attrgetter("threshold")):
            scores = np.concatenate([batch.scores for batch in same])
            self._add_scores(scores, int(np.count_nonzero(scores >= threshold)))

    def add_answered(self, answered: Answered) -> None:
        sizes, at, *stages = answered.batches.T
        self._add_times(sizes.astype(np.int64), at, answered.timestamps_ms)
        for stage, seconds in zip(STAGES, stages, strict=True):
            self.stages[stage].observe(seconds)
        self._add_scores(answered.scores, answered.flagged)

    def _add_times(self, sizes: NDArray[np.int64], at: NDArray[np.float64], timestamps_ms: NDArray[np.int64]) -> None:
        self.batch_records.observe(sizes.astype(np.float64))
        self.latency.observe(np.maximum(np.repeat(at, sizes) - timestamps_ms / 1000, 0))  # none below zero: clocks differ

    def _add_scores(self, scores: NDArray[np.float64], flagged: int) -> None:
        self.scored += len(scores)
        self.flagged += flagged
        self.scores.observe(scores)
