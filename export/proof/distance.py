"""How far apart two results are, and how far they may be. Pure."""

import numpy as np
from numpy.typing import NDArray

from saker.export.readers.source import Source


def distance(got: NDArray[np.float64], expected: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which numbers are the same (including equal infinities, and two NaN), and the distance of the others; inf from a NaN."""
    same: NDArray[np.bool_] = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        apart = np.abs(got - expected)
    return same, np.where(same, 0, np.nan_to_num(apart, nan=np.inf, posinf=np.inf))


def rounding_floor(source: Source) -> float:
    """Largest error of adding one leaf of each tree in any order: (n - 1) eps times the sum of the magnitudes."""
    largest = sum(float(np.abs(tree.leaf_value).max()) for tree in source.ensemble.trees)
    return max(len(source.ensemble.trees) * source.sum_epsilon * largest, float(np.finfo(np.float64).tiny))
