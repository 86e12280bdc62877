"""The interface that a training library must offer for export and proof.

    model (Booster, estimator) --open_source--> Source: its trees (`ensemble`) + the library's own answers (the oracle)

A library is recognised by the module of the model's class, and only the file that reads it imports it.
"""

import warnings
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saker.export.readers.ensemble import Ensemble


class Source(Protocol):
    """A trained model: the trees to export, and the library's own results for rows, float32 (n, f)."""

    ensemble: Ensemble
    exact: bool  # whether it adds in float64, tree by tree: the same bits then
    relative_tolerance: float  # for margins: 1e-9 where the library adds in float64
    sum_epsilon: float  # machine epsilon of the type in which the library adds the trees

    def margins(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        """(n, k) what the output `raw` has to be."""

    def scores(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        """(n, k) what the output `score` has to be."""

    def leaves(self, rows: NDArray[np.float32], threads: int, iteration: int | None = None) -> NDArray[np.int64]:
        """(n, trees) the leaf of each tree, or of those of one iteration, in the ensemble's order and numbering."""

    def leaf_values(self, tree: int) -> NDArray[np.float64]:
        """(leaves,) what each leaf of one tree adds."""

    def admissible(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows with values that the library refuses (infinities, say) replaced by others."""


def predicted(estimator: Any, rows: NDArray[np.float32], **asked: Any) -> NDArray[np.float64]:
    """(n, classes) or (n, 1): predictions of an estimator with scikit-learn's interface, also if it was fitted on a frame."""
    predict = getattr(estimator, "predict_proba", estimator.predict)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        return np.asarray(predict(rows, **asked), np.float64).reshape(len(rows), -1)


def of_last_class(scores: NDArray[np.float64], n_outputs: int) -> NDArray[np.float64]:
    """Of a classifier's probabilities (n, classes) what a model of one output scores: that of the second of two."""
    return scores[:, 1:] if n_outputs == 1 and scores.shape[1] == 2 else scores
