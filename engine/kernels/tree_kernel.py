"""The tree kernel: raw sums of the trees of an ONNX file, to the last bit as LightGBM adds them, or onnxruntime where they are
of float32.

    model.onnx --onnx_reader/--> Ensemble --native/trees/plan*.c--> Plan
                                                                     |
       rows --bin_search.h, bins.h--> bins --treelets.h--> leaves --leaf_sums.h--> float64 sums   more than a few rows
         |                             \\--tree_per_lane.h: 64 trees at once--^          ^         few rows, AVX-512
         \\--traversal.h: ten trees at once, branch-free----------------------/                    few rows, many leaves

A kernel is ready when it is built, never changes, and may be shared by threads: it releases the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels import Native
from saker.engine.kernels.errors import Damaged, Refused
from saker.engine.kernels.onnx_reader.ensemble import Ensemble
from saker.engine.kernels.onnx_reader.input_columns import Columns

if TYPE_CHECKING:
    from saker.engine.kernels import _native


_NOT_TREES = "the nodes do not form trees"  # native/trees/builder.h


class TreeKernel:
    """`score` gives the raw sums; raises `Refused` where the ensemble is not one for the kernel.

    variant: one of `native.variants()` instead of the best; the keyword arguments that follow are for measurements.
    """

    def __init__(self, native: Native, ensemble: Ensemble, columns: Columns, variant: str | None = None, **tuning: int) -> None:
        e = ensemble
        try:
            self.plan = native.Plan(
                n_features=e.n_features,
                n_targets=e.n_targets,
                average=e.average,
                single=e.single,
                root=e.root,
                feature=e.feature,
                nan_true=e.nan_true,
                threshold=e.threshold,
                set=e.set,
                yes=e.yes,
                no=e.no,
                leaf_value=e.leaf_value,
                leaf_target=e.leaf_target,
                set_feature=np.array([s.feature for s in e.sets], np.int32),
                set_n_values=np.array([len(s.values) for s in e.sets], np.int32),
                set_count=np.array([s.count for s in e.sets], np.int32),
                set_values=_joined([s.values for s in e.sets], np.float32),
                set_bits=_joined([s.bits for s in e.sets], np.uint8),
                n_input=columns.n_input,
                source=columns.source,
                kind=columns.kind,
                low=columns.low,
                high=columns.high,
                isa=variant,
                **tuning,
            )
        except ValueError as error:
            raise (Damaged if _NOT_TREES in str(error) else Refused)(str(error)) from error
        self.n_targets = e.n_targets

    @property
    def variant(self) -> str:
        """What runs: avx512, avx2 or baseline."""
        return str(self.plan.isa)

    @property
    def ways(self) -> dict[str, int]:
        """The most rows of a block, how many rows go through lanes or are walked, and whether vectors have 512 bits (1)."""
        block, walked, lanes, wide = self.plan.ways
        return {"block": block, "walked": walked, "lanes": lanes, "wide": wide}

    def score(self, x: NDArray[np.float32], program: _native.Program | None = None) -> NDArray[np.float64]:
        """Raw sums (n, targets) float64 of C-contiguous `x` (n, features) float32; or, of one target, what a native program of
        one input and one output makes of them.

        Raises TypeError for another dtype and ValueError for another shape; nothing is converted or copied.
        """
        out = np.empty((len(x), self.n_targets))
        self.plan.score(x, out, program)
        return out


def _joined(arrays: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([a.reshape(-1) for a in arrays]).astype(dtype) if arrays else np.empty(0, dtype)
