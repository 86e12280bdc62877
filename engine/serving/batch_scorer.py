"""Score a batch with the marker set, record by record where a worker may have ended by one of them.

One worker owns a scorer; it counts late records in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.kafka.batch import ConsumedBatch, Partition, single_records
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import Scored, rejected_unseen, score_batch
from saker.engine.serving.poison_records import SuspectRecords, why_given_up


class ScoredPart(NamedTuple):
    """A batch, or one record of it alone, with the positions after it."""

    batch: ConsumedBatch
    positions: dict[Partition, int]
    scored: Scored
    alone: bool


class BatchScorer:
    def __init__(self, marker: InFlightMarker, suspects: SuspectRecords, late_ms: float | None) -> None:
        self._marker, self._suspects, self._late_ms = marker, suspects, late_ms
        self._late = 0

    @property
    def has_suspects(self) -> bool:
        """Whether records are to come of which a worker may have died."""
        return bool(self._suspects.behind)

    def score(self, model: ActiveModel, batch: ConsumedBatch) -> Iterator[ScoredPart]:
        """The batch, or its records one by one. The marker is set until the next one is asked for: while it is sent, too."""
        positions = batch.positions()
        if not self._suspects.among(positions):
            self._marker.note(positions, alone=False)
            yield ScoredPart(batch, positions, self._score(model, batch), alone=False)
            self._marker.done()
            return
        for single in single_records(batch):
            origin, after = single.origin(0), single.positions()
            self._marker.note(after, alone=True)
            refused = self._suspects.given_up.get((origin.partition, origin.offset))
            if refused and model.decoder.history is not None:
                model.decoder.decode(single)  # a result that Kafka refuses does not take its record out of the history
            scored = self._score(model, single) if refused is None else rejected_unseen(model, why_given_up(refused))
            yield ScoredPart(single, after, scored, alone=True)
            self._marker.done()

    def replay(self, model: ActiveModel, batch: ConsumedBatch) -> None:
        """Enter records into the histories, without results."""
        positions = batch.positions()
        if not self._suspects.among(positions):
            self._marker.note(positions, alone=False)
            model.decoder.decode(batch)
            self._marker.done()
            return
        for single in single_records(batch):
            origin = single.origin(0)
            if self._suspects.given_up.get((origin.partition, origin.offset)) == 0:
                continue  # workers died of it
            self._marker.note(single.positions(), alone=True)
            model.decoder.decode(single)
            self._marker.done()

    def drain_late(self) -> int:
        """How many records came late since the last call."""
        late, self._late = self._late, 0
        return late

    def _score(self, model: ActiveModel, batch: ConsumedBatch) -> Scored:
        return score_batch(model, batch, self._are_late(batch))

    def _are_late(self, batch: ConsumedBatch) -> NDArray[np.bool_] | None:
        """Which records are older than they may be when they arrive, if there is such a limit."""
        if self._late_ms is None:
            return None
        timestamps = np.empty(len(batch), np.int64)
        batch.timestamps(timestamps)
        late: NDArray[np.bool_] = timestamps < time.time() * 1000 - self._late_ms
        self._late += int(np.count_nonzero(late))
        return late
