"""Scores to bytes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import orjson
from numpy.typing import NDArray


def encode_scores(
    ids: Iterable[int | str],
    scores: NDArray[np.float64],
    *,
    id_field: str,
    threshold: float,
    model: str,
    scored_at_ms: int,
) -> list[bytes]:
    """One JSON object a score: identifier, fraud_score, is_fraud, model and the time of scoring (ms since 1970)."""
    dumps = orjson.dumps
    return [
        dumps(
            {
                id_field: identifier,
                "fraud_score": score,
                "is_fraud": score >= threshold,
                "model": model,
                "scored_at_ms": scored_at_ms,
            },
        )
        for identifier, score in zip(ids, scores.tolist(), strict=True)
    ]
