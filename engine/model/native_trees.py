"""The native way from rows to scores for supported models, checked against onnxruntime when a model is opened.

    rows --TreeKernel--> raw sums --Tail--> scores     (one native call, if the tail is a native program)

The sums of a float64 ensemble (by `saker export`) are LightGBM's to the last bit; those of a float32 ensemble (by other
converters) are onnxruntime's.

An unsupported model, or one that differs on rows made of its own thresholds, is `Refused` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels import Native
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.ensemble import Ensemble, ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.onnx_reader.input_columns import Columns
from saker.engine.kernels.onnx_reader.legacy_ensembles import with_tree_ensemble
from saker.engine.kernels.onnx_reader.post_transform import tail_of
from saker.engine.kernels.tree_kernel import TreeKernel
from saker.engine.onnx_trees import SCORE_TOLERANCE

if TYPE_CHECKING:
    from saker.engine.kernels import _native

_ROWS = 64  # a few milliseconds of onnxruntime
_SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-36, -0.5, 2.5, 1e20], np.float32)


class NativeTrees:
    """Scores rows with `variant`. Raises `Refused` for an unsupported model or one that differs from onnxruntime."""

    def __init__(
        self,
        native: Native,
        model: bytes,
        output: str,
        column: int | None,
        ask: Callable[[list[str], NDArray[np.float32]], list[Any]],
    ) -> None:
        """column: of the output (n, k) that is the score, None for an output (n,). ask: names of outputs and rows -> what
        onnxruntime makes of them.
        """
        graph = with_tree_ensemble(read_graph(model))
        ensemble, columns = ensemble_of(graph)
        self._kernel = TreeKernel(native, ensemble, columns)
        self._tail = tail_of(native, graph, ensemble, output, column)
        self._program = self._tail.program if self._kernel.n_targets == 1 else None
        self.variant = self._kernel.variant
        self._prove(ensemble, columns, column, graph.outputs, ask)

    @property
    def plan_and_program(self) -> tuple[_native.Plan, _native.Program] | None:
        """What makes a sum of a row, and a score of that; None if there is more to it."""
        return None if self._program is None else (self._kernel.plan, self._program)

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (n,) of C-contiguous rows `x` (n, f) float32."""
        if self._program is not None:
            return self._kernel.score(x, self._program)[:, 0]
        return np.ascontiguousarray(self._tail(self._kernel.score(x)), np.float64)

    def _prove(
        self,
        ensemble: Ensemble,
        columns: Columns,
        column: int | None,
        outputs: tuple[str, ...],
        ask: Callable[[list[str], NDArray[np.float32]], list[Any]],
    ) -> None:
        rows = hard_rows(ensemble, columns)
        sums, raw = self._kernel.score(rows), ensemble.output
        names = [self._tail.output] + ([raw] if raw in outputs else [])
        made, *raw_sums = ask(names, rows)
        scores, expected = self.score(rows), (made if column is None else made[:, column]).astype(np.float64)
        if scores.shape != expected.shape:
            raise Refused(f"scores are {scores.shape}, by onnxruntime {expected.shape}")
        with np.errstate(invalid="ignore"):
            near = np.abs(scores - expected) <= SCORE_TOLERANCE * np.abs(expected)
        off = ~(near | (scores == expected) | (np.isnan(scores) & np.isnan(expected)))
        for one in raw_sums:
            off |= (sums != one).any(axis=1)
        if off.any():
            raise Refused(f"{int(off.sum())} of {len(rows)} rows come out otherwise than by onnxruntime")


def hard_rows(ensemble: Ensemble, columns: Columns, seed: int = 0) -> NDArray[np.float32]:
    """Rows (n, f) float32 with values on the thresholds of the model, one float32 step from them, or unusual."""
    rng, source = np.random.default_rng(seed), columns.source
    numeric = ensemble.set < 0
    features = [source[ensemble.feature[numeric]], *(np.full(len(s.values), source[s.feature]) for s in ensemble.sets)]
    values = [ensemble.threshold[numeric], *(s.values for s in ensemble.sets)]
    feature, value = np.concatenate(features), np.concatenate(values).astype(np.float32)
    order = np.argsort(feature, kind="stable")
    feature, value = feature[order], value[order]
    used, first, count = np.unique(feature, return_index=True, return_counts=True)
    rows = np.zeros((_ROWS, columns.n_input), np.float32)
    if len(used):
        at = value[first + (rng.random((_ROWS, len(used))) * count).astype(np.int64)]
        with np.errstate(over="ignore"):
            steps = [at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))]
        rows[:, used] = np.choose(rng.integers(3, size=at.shape), steps)
    odd = rng.random(rows.shape) < 0.15  # noqa: PLR2004 - enough of them, and rows that still go different ways
    rows[odd] = rng.choice(np.append(_SPECIAL, np.array([columns.low, columns.high], np.float32)), size=int(odd.sum()))
    return rows
