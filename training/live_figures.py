"""What a model is worth on live records whose labels have come: a chargeback comes weeks after its transaction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_score, recall_score, roc_auc_score


class Live(NamedTuple):
    """NaN where it is undefined: precision of a model that flagged nothing, recall without fraud."""

    precision: float
    recall: float
    roc_auc: float


def judge(labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float) -> Live:
    """labels (n,) 0 or 1, scores (n,) finite; a record is flagged at `threshold` and above."""
    flagged = scores >= threshold
    both = len(np.unique(labels)) > 1
    return Live(
        float(precision_score(labels, flagged, zero_division=np.nan)),
        float(recall_score(labels, flagged, zero_division=np.nan)),
        float(roc_auc_score(labels, scores)) if both else np.nan,
    )
