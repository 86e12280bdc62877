"""What trees mean in an ONNX file (`TreeEnsemble` of ai.onnx.ml 5): shared by the exporter, the tree kernel and the proofs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: nodes_modes
LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(7)

#: How a column of the input is read: as it is, with a band of values for missing, or cut to a whole number (enum of
#: native/trees/plan_type.c).
PLAIN, BAND, CATEGORY = range(3)

#: Largest relative difference between two scores of the same sum: an exponential may be off by its last bit or two.
SCORE_TOLERANCE = 1e-15


def floor32(values: NDArray[Any]) -> NDArray[np.float32]:
    """The largest float32 that is not above each float64: for a float32 x, `x <= value` is `x <= floor32(value)`."""
    with np.errstate(over="ignore"):  # beyond the largest float32 there is infinity
        nearest = values.astype(np.float32)
        return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float32)
