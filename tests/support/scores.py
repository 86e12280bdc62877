"""The scores that records must get: LightGBM's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightgbm
import orjson

from saker.engine.contract import Contract
from saker.training.fit import Trained, build_matrix


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model, its file, and records that it never saw."""

    booster: lightgbm.Booster
    path: Path
    trained: Trained

    def expected_scores(self, records: list[bytes]) -> dict[int, float]:
        return expected_scores(self.booster, self.trained.contract, records)


def expected_scores(booster: lightgbm.Booster, contract: Contract, records: list[bytes]) -> dict[int, float]:
    """The score of each record by its identifier; no record may be one that is rejected."""
    matrix, kept, _, _ = build_matrix(contract, records)
    assert len(kept) == len(records)
    identifiers = [orjson.loads(record)[contract.id_field] for record in records]
    return dict(zip(identifiers, booster.predict(matrix, num_threads=1).tolist(), strict=True))
