"""The trees of a boosted model as plain arrays, between the readers and the ONNX writer.

Values are frozen and shared freely; no array changes after it was built. Nodes keep LightGBM's numbering, so that
node i and leaf j here are node i and leaf j in `Booster.dump_model` and in `Booster.predict(pred_leaf=True)`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Values of `(decision_type >> 2) & 3` in LightGBM's include/LightGBM/tree.h, Tree::GetMissingType.
MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2
# Beside NaN the `missing_value` of the ensemble: XGBoost's estimators have one.
MISSING_VALUE = 3
MISSING_NAMES = ("none", "zero", "NaN", "value")

# kZeroThreshold of include/LightGBM/meta.h is the *float* literal 1e-35f held in a double, and so are the bin borders
# next to zero: a model is full of thresholds that are exactly this number.
ZERO_BAND = float(np.float32(1e-35))


@dataclass(frozen=True)
class Tree:
    """One tree with m splits and m + 1 leaves; m may be 0.

    A child c >= 0 is the split c, a child c < 0 is the leaf ~c (LightGBM's convention).
    """

    feature: NDArray[np.int32]  # (m,) column of the input matrix
    threshold: NDArray[np.float64]  # (m,) `x <= threshold` goes left for a float32 x; meaningless where `categorical`
    categorical: NDArray[np.bool_]  # (m,)
    default_left: NDArray[np.bool_]  # (m,) where a missing value goes; no meaning where `categorical`
    missing: NDArray[np.int8]  # (m,) MISSING_*
    left: NDArray[np.int32]  # (m,)
    right: NDArray[np.int32]  # (m,)
    leaf_value: NDArray[np.float64]  # (m + 1,)
    split_rows: NDArray[np.int32]  # (m,) training rows that passed the split
    leaf_rows: NDArray[np.int32]  # (m + 1,) training rows that ended in the leaf
    categories: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # split -> sorted categories that go left

    @property
    def n_splits(self) -> int:
        return len(self.feature)

    @property
    def n_leaves(self) -> int:
        return len(self.leaf_value)


@dataclass(frozen=True)
class Ensemble:
    """A whole model. Tree i adds to output i % n_outputs, in this order."""

    source: str  # "LightGBM v4": the library and its file format or version
    objective: str  # the first word of the objective, "custom" when the model has none
    sigmoid: float  # the parameter of the logistic objectives, 1.0 elsewhere
    square_root: bool  # trained on the square root of the target (`reg_sqrt`)
    averaged: bool  # a forest: the score is made from the mean of the iterations, not from their sum
    n_outputs: int
    feature_names: tuple[str, ...]
    trees: tuple[Tree, ...]
    categories: list[list[Any]] | None = None  # what pandas called the codes of each column of categories
    missing_value: np.float32 | None = None  # where trees have MISSING_VALUE
    codes: tuple[int | None, ...] = ()  # (f,) the largest code of a categorical feature, None of another; LightGBM only
    counts: tuple[int | None, ...] = ()  # (f,) the largest of a feature of whole numbers from 0 on, None of another; the same

    @property
    def n_features(self) -> int:
        return len(self.feature_names)

    @property
    def iterations(self) -> int:
        return len(self.trees) // self.n_outputs

    def of(self, iteration: int | None) -> slice:
        """The trees of one iteration, or all."""
        return slice(None) if iteration is None else slice(iteration * self.n_outputs, (iteration + 1) * self.n_outputs)


def effective_threshold(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """The threshold that gives LightGBM's decision for the original value, without rounding it to zero first.

    The C API hands a dense row over without the values in [-ZERO_BAND, ZERO_BAND] (`RowPairFunctionFromDenseMatrix` of
    src/c_api.cpp), so that a split sees 0.0 for them. Only a threshold inside the band can tell the difference, and
    -ZERO_BAND itself is one: it is the upper border of the bin below zero, and float32 can hold it. There `x <= t` has
    to become "below the band" when t < 0, and "not above the band" when t >= 0.
    """
    below = np.nextafter(-ZERO_BAND, -np.inf)
    inside = np.where(threshold < 0, below, ZERO_BAND)
    return np.where(np.abs(threshold) <= ZERO_BAND, inside, threshold)
