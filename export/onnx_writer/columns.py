"""The columns that the trees read, and how the float32 input becomes them: the first nodes of the graph.

A TreeEnsemble node is one comparison, with one bit for where NaN goes. Three of LightGBM's decisions are more than that, and
a chain of nodes cannot express them: both ends of the chain would share their subtrees, which onnxruntime refuses
(1.32) or copies for each parent, doubling the tree at every level (1.24). So the columns are prepared:

    plain     x as it is
    band      |x| <= 1e-35 becomes NaN, since LightGBM's missing type zero takes zero, NaN and nothing else for missing;
              or x == v does, where an estimator of XGBoost has missing=v
    category  x truncated towards zero, since LightGBM looks up int(x): 2.9 is the category 2 and -0.5 the category 0

A feature keeps its column and its number, unless different trees read it in different ways (after
training continued on another data set): then the further kinds get columns at the end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from saker.engine.onnx_trees import BAND, CATEGORY, PLAIN
from saker.export.onnx_writer.objectives import Nodes
from saker.export.readers.ensemble import MISSING_VALUE, MISSING_ZERO, ZERO_BAND, Ensemble, Tree

_EITHER = 3  # a split that reads the same from a plain and from a band column


@dataclass(frozen=True)
class Columns:
    """The columns of the matrix that the TreeEnsemble reads; the first n_features are the input's own."""

    feature: NDArray[np.int64]  # (c,) the input column that it is made of
    kind: NDArray[np.int8]  # (c,) PLAIN, BAND or CATEGORY
    number: NDArray[np.int64]  # (f, 4) the column of a feature read in a way (PLAIN..EITHER), -1 where no split does

    def of(self, tree: Tree) -> NDArray[np.int64]:
        """(m,) the column that each split of the tree reads."""
        return self.number[tree.feature, _kinds(tree)]


def plan_columns(ensemble: Ensemble) -> Columns:
    """Give each feature a column for each way in which the trees read it, the first of them in the feature's place."""
    used = np.zeros((ensemble.n_features, 4), np.bool_)
    for tree in ensemble.trees:
        used[tree.feature, _kinds(tree)] = True
    feature = list(range(ensemble.n_features))
    kind = [PLAIN] * ensemble.n_features
    number = np.full((ensemble.n_features, 4), -1, np.int64)
    for f in range(ensemble.n_features):
        kinds = np.flatnonzero(used[f, :_EITHER]).tolist() or [PLAIN]
        if used[f, _EITHER] and kinds == [CATEGORY]:
            kinds.append(PLAIN)
        for position, k in enumerate(kinds):
            number[f, k] = f if position == 0 else len(feature)
            if position == 0:
                kind[f] = k
            else:
                feature.append(f)
                kind.append(k)
        number[f, _EITHER] = number[f, PLAIN] if PLAIN in kinds else number[f, BAND]
    return Columns(np.array(feature, np.int64), np.array(kind, np.int8), number)


def _kinds(tree: Tree) -> NDArray[np.int8]:
    """(m,) how each split reads its feature.

    Missing type zero needs the prepared column only where the default direction is not the side on which zero is anyway.
    """
    zero_is_left = tree.threshold >= 0
    zero_kind = np.where(tree.default_left == zero_is_left, _EITHER, BAND)
    numerical = np.select([tree.missing == MISSING_ZERO, tree.missing == MISSING_VALUE], [zero_kind, BAND], PLAIN)
    return np.where(tree.categorical, CATEGORY, numerical).astype(np.int8)


def build_columns(graph: Nodes, features: str, columns: Columns, ensemble: Ensemble) -> str:
    """Nodes from the float32 input (n, f) to the float64 matrix (n, c) that the trees read."""
    values = features
    if len(columns.feature) > ensemble.n_features:
        extra = graph.add("Gather", values, graph.constant("extra_columns", columns.feature[ensemble.n_features :]), axis=1)
        values = graph.add("Concat", values, extra, axis=1)
    in_band, is_category = columns.kind == BAND, columns.kind == CATEGORY
    original = values
    if ensemble.missing_value is not None:
        missing = graph.add("Equal", original, graph.constant("missing_value", ensemble.missing_value))
        values = graph.add("Where", missing, graph.constant("missing", np.float32(np.nan)), values)
        return graph.add("Cast", values, to=TensorProto.DOUBLE)
    magnitude = graph.add("Abs", original) if in_band.any() or is_category.any() else ""
    if in_band.any():
        # A limit per column: nothing is as small as -1, so the other columns stay as they are.
        limit = graph.constant("zero_limit", np.where(in_band, np.float32(ZERO_BAND), np.float32(-1))[None, :])
        missing = graph.add("LessOrEqual", magnitude, limit)
        values = graph.add("Where", missing, graph.constant("missing", np.float32(np.nan)), values)
    if is_category.any():
        whole = graph.add("Mul", graph.add("Floor", magnitude), graph.add("Sign", original))
        values = graph.add("Where", graph.constant("is_category", is_category[None, :]), whole, values)
    return graph.add("Cast", values, to=TensorProto.DOUBLE)
