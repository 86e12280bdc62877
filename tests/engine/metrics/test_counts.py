"""What a worker counts of the batches that were acknowledged."""

from __future__ import annotations

import numpy as np
import pytest

from saker.engine.metrics.counts import Acknowledged, Counts


def batch(at: float, timestamps_ms: list[int], scores: list[float], threshold: float, **stages: float) -> Acknowledged:
    return Acknowledged(at, np.array(timestamps_ms), stages, threshold, np.array(scores))


def test_batches_of_two_models_and_one_that_was_not_scored() -> None:
    counts = Counts()
    counts.add_batches(
        [
            batch(10.0, [9_000, 9_999, 10_500], [0.1, 0.6], 0.5, decode=0.002, acknowledge=0.02),
            batch(10.0, [9_990], [0.6], 0.7, decode=0.00001, acknowledge=0.02),
            batch(10.0, [9_990], [], 0.7, acknowledge=0.02),
        ]
    )
    assert (counts.scored, counts.flagged) == (3, 1)
    assert sum(counts.scores.counts) == 3
    assert (sum(counts.batch_records.counts), counts.batch_records.total) == (3, 5)
    assert (sum(counts.latency.counts), counts.latency.counts[0]) == (5, 1)  # a clock that is before ours: no time at all
    assert counts.latency.total == pytest.approx(1.0 + 0.001 + 0 + 0.01 + 0.01)
    assert {stage: sum(histogram.counts) for stage, histogram in counts.stages.items()} == {
        "decode": 2, "score": 0, "encode": 0, "produce": 0, "acknowledge": 3,
    }  # fmt: skip
    assert counts.stages["decode"].total == pytest.approx(0.00201)


def test_nothing_was_acknowledged() -> None:
    counts = Counts()
    counts.add_batches([])
    assert counts == Counts()
