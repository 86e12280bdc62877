"""Score a batch with the marker set, record by record where a worker may have died of one of them.

One worker owns a scorer; it counts late records in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from saker.engine.kafka.batch import ConsumedBatch, Partition, single_records
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import Scored, given_up, score_batch
from saker.engine.serving.poison_records import InFlightMarker, SuspectRecords


class BatchScorer:
    def __init__(self, marker: InFlightMarker, suspects: SuspectRecords, late_ms: float | None) -> None:
        self._marker, self._suspects, self._late_ms = marker, suspects, late_ms
        self._late = 0

    @property
    def has_suspects(self) -> bool:
        """Whether records are to come of which a worker may have died."""
        return bool(self._suspects.behind)

    def score(self, model: ActiveModel, batch: ConsumedBatch) -> Iterator[tuple[ConsumedBatch, dict[Partition, int], Scored]]:
        """The batch, or its records one by one; each with the positions after it and its scores."""
        positions = batch.positions()
        if not self._suspects.among(positions):
            yield batch, positions, self._score(model, batch, positions, alone=False)
            return
        for single in single_records(batch):
            origin, after = single.origin(0), single.positions()
            if (origin.partition, origin.offset) in self._suspects.given_up:
                yield single, after, given_up(model)
            else:
                yield single, after, self._score(model, single, after, alone=True)

    def drain_late(self) -> int:
        """How many records came late since the last call."""
        late, self._late = self._late, 0
        return late

    def _score(self, model: ActiveModel, batch: ConsumedBatch, positions: dict[Partition, int], *, alone: bool) -> Scored:
        self._marker.scoring(positions, alone=alone)
        scored = score_batch(model, batch, self._are_late(batch))
        self._marker.done()
        return scored

    def _are_late(self, batch: ConsumedBatch) -> NDArray[np.bool_] | None:
        """Which records are older than they may be when they arrive, if there is such a limit."""
        if self._late_ms is None:
            return None
        timestamps = np.empty(len(batch), np.int64)
        batch.timestamps(timestamps)
        late: NDArray[np.bool_] = timestamps < time.time() * 1000 - self._late_ms
        self._late += int(np.count_nonzero(late))
        return late
