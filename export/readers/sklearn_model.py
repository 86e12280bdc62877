"""scikit-learn as a `Source`: HistGradientBoosting*, RandomForest*, ExtraTrees* and DecisionTree*.

Both families compare a float32 value with a float64 threshold, `x <= t`, and add in float64, so a forest and a boosted model
are as exact as LightGBM's. `score` is `predict` of a regressor and the probability of the last class of two, or of all
classes, of a classifier. A forest's leaf holds a value for every class and the operator's holds one: the forest is written
once for each class, or once when there are two.

Refused by name: categorical features, several outputs, losses that are not in _LOSSES, every other estimator.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.export.errors import UnsupportedModel
from saker.export.readers.ensemble import MISSING_NAN, Ensemble, Tree
from saker.export.readers.source import Source, of_last_class, predicted

_LOSSES = {
    "HalfBinomialLoss": "binary",
    "HalfMultinomialLoss": "multiclass",
    "HalfSquaredError": "regression",
    "AbsoluteError": "regression_l1",
    "PinballLoss": "quantile",
    "HalfPoissonLoss": "poisson",
    "HalfGammaLoss": "gamma",
}


def open_sklearn(model: Any, iterations: int | None = None) -> Source:
    """Choose the reader by what the fitted estimator has; raises UnsupportedModel for others."""
    from sklearn.ensemble._forest import ForestClassifier, ForestRegressor
    from sklearn.tree import BaseDecisionTree

    if hasattr(model, "_predictors"):
        return HistGradientBoostingSource(model, iterations)
    if isinstance(model, (ForestClassifier, ForestRegressor, BaseDecisionTree)) and hasattr(model, "n_outputs_"):
        return ForestSource(model, iterations)
    expected = "HistGradientBoosting*, a forest or a tree, fitted"
    raise UnsupportedModel("estimator", f"expected {expected}, got {type(model).__name__}")


class HistGradientBoostingSource:
    """The baseline is part of the first tree, as scikit-learn adds it first: the margins are the same to the last bit."""

    exact = True
    relative_tolerance = 1e-9
    sum_epsilon = float(np.finfo(np.float64).eps)

    def __init__(self, model: Any, iterations: int | None = None) -> None:
        self._model = model
        iterations = _iterations(iterations, len(model._predictors))
        self._limited = iterations < len(model._predictors)
        if model.is_categorical_ is not None and np.any(model.is_categorical_):
            raise UnsupportedModel(
                "categorical features", "the model has categorical features; encode them as numbers to export it"
            )
        loss = type(model._loss).__name__
        if loss not in _LOSSES:
            raise UnsupportedModel("loss", f"{loss} is not one of {', '.join(_LOSSES)}")
        baseline = np.ravel(model._baseline_prediction)
        self._iterations = iterations
        self._leaf_of_node: list[NDArray[np.int64]] = []
        trees = []
        for iteration, predictors in enumerate(model._predictors[:iterations]):
            for output, predictor in enumerate(predictors):
                tree, leaf_of = _hist_tree(predictor.nodes, float(baseline[output]) if iteration == 0 else 0.0)
                trees.append(tree)
                self._leaf_of_node.append(leaf_of)
        self.ensemble = _ensemble(model, _LOSSES[loss], len(model._predictors[0]), averaged=False, trees=trees)

    def margins(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        staged = enumerate(self._model._staged_raw_predict(rows), 1)
        margin = next(margin for iteration, margin in staged if iteration == self._iterations)
        return np.asarray(margin, np.float64).reshape(len(rows), -1)

    def scores(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        model = self._model
        if self._limited:
            staged = model.staged_predict_proba(rows) if hasattr(model, "classes_") else model.staged_predict(rows)
            result = next(value for iteration, value in enumerate(staged, 1) if iteration == self._iterations)
            result = np.asarray(result, np.float64).reshape(len(rows), -1)
        else:
            result = predicted(model, rows)
        return of_last_class(result, self.ensemble.n_outputs)

    def leaves(self, rows: NDArray[np.float32], threads: int, iteration: int | None = None) -> NDArray[np.int64]:
        # scikit-learn does not say which leaf; its trees are walked here, as TreePredictor does.
        return np.stack([_walk(tree, rows) for tree in self.ensemble.trees[self.ensemble.of(iteration)]], axis=1)

    def leaf_values(self, tree: int) -> NDArray[np.float64]:
        return self.ensemble.trees[tree].leaf_value

    def admissible(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows


class ForestSource:
    """`raw` is the sum over the trees and `score` the mean. NaN is admissible only if the training data had some."""

    exact = True
    relative_tolerance = 1e-9
    sum_epsilon = float(np.finfo(np.float64).eps)

    def __init__(self, model: Any, iterations: int | None = None) -> None:
        self._trees = list(getattr(model, "estimators_", [model]))
        self._trees = self._trees[: _iterations(iterations, len(self._trees))]
        if model.n_outputs_ != 1:
            raise UnsupportedModel("outputs", f"expected a model with one output, got {model.n_outputs_}")
        n_classes = int(model.n_classes_) if hasattr(model, "classes_") else 1
        self._columns = [1] if n_classes == 2 else list(range(n_classes))
        if hasattr(model, "classes_") and n_classes == 1:
            raise UnsupportedModel("classes", "the classifier has seen only one class")
        trees, self._leaf_of_node = [], []
        for estimator in self._trees:
            for column in self._columns:
                tree, leaf_of = _cart_tree(estimator.tree_, column)
                trees.append(tree)
                self._leaf_of_node.append(leaf_of)
        self._missing = all(_takes_missing(estimator) for estimator in self._trees)
        self.ensemble = _ensemble(model, "mean", len(self._columns), averaged=True, trees=trees)

    def margins(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        total = np.zeros((len(rows), len(self._columns)))
        for estimator in self._trees:
            total += self._answer(estimator, rows)
        return total

    def scores(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        return self.margins(rows, threads) / len(self._trees)

    def leaves(self, rows: NDArray[np.float32], threads: int, iteration: int | None = None) -> NDArray[np.int64]:
        asked = self._trees if iteration is None else self._trees[iteration : iteration + 1]
        nodes = np.repeat([estimator.apply(rows) for estimator in asked], len(self._columns), axis=0)
        leaf_of = self._leaf_of_node[self.ensemble.of(iteration)]
        return np.stack([of[node] for of, node in zip(leaf_of, nodes, strict=True)], axis=1)

    def leaf_values(self, tree: int) -> NDArray[np.float64]:
        return self.ensemble.trees[tree].leaf_value

    def admissible(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        # Infinities are refused, and so is a column whose float32 sum overflows.
        finite = np.clip(rows, np.float32(-1e30), np.float32(1e30))
        return finite if self._missing else np.where(np.isnan(finite), np.float32(0), finite)

    def _answer(self, estimator: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        if hasattr(estimator, "predict_proba"):
            return np.asarray(estimator.predict_proba(rows)[:, self._columns], np.float64)
        return np.asarray(estimator.predict(rows), np.float64).reshape(len(rows), 1)


def _takes_missing(estimator: Any) -> bool:
    """scikit-learn refuses NaN unless it saw some in training, and does not say so but by refusing."""
    try:
        estimator.predict(np.full((1, estimator.n_features_in_), np.nan, np.float32))
    except ValueError:
        return False
    return True


def _iterations(asked: int | None, total: int) -> int:
    if asked is not None and not 1 <= asked <= total:
        raise ValueError(f"iterations: expected 1..{total}, got {asked}")
    return asked or total


def _ensemble(model: Any, objective: str, n_outputs: int, *, averaged: bool, trees: list[Tree]) -> Ensemble:
    import sklearn

    names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(model.n_features_in_)])
    return Ensemble(
        source=f"scikit-learn {sklearn.__version__} {type(model).__name__}",
        objective=objective,
        sigmoid=1.0,
        square_root=False,
        averaged=averaged,
        n_outputs=n_outputs,
        feature_names=tuple(map(str, names)),
        trees=tuple(trees),
    )


def _hist_tree(nodes: NDArray[Any], start: float) -> tuple[Tree, NDArray[np.int64]]:
    is_leaf = nodes["is_leaf"].astype(bool)
    return _numbered(
        is_leaf,
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        default_left=nodes["missing_go_to_left"].astype(bool),
        value=start + nodes["value"],
        rows=nodes["count"],
    )


def _cart_tree(tree: Any, column: int) -> tuple[Tree, NDArray[np.int64]]:
    return _numbered(
        tree.children_left == -1,
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=tree.threshold,
        default_left=tree.missing_go_to_left.astype(bool),
        value=tree.value[:, 0, column],
        rows=tree.n_node_samples,
    )


def _numbered(
    is_leaf: NDArray[np.bool_],
    *,
    left: NDArray[Any],
    right: NDArray[Any],
    feature: NDArray[Any],
    threshold: NDArray[Any],
    default_left: NDArray[np.bool_],
    value: NDArray[Any],
    rows: NDArray[Any],
) -> tuple[Tree, NDArray[np.int64]]:
    """A tree whose splits and leaves share one numbering becomes one where each has its own; also leaf by node number."""
    number = np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(~is_leaf) - 1)
    splits = np.flatnonzero(~is_leaf)
    tree = Tree(
        feature=feature[splits].astype(np.int32),
        threshold=threshold[splits].astype(np.float64),
        categorical=np.zeros(len(splits), np.bool_),
        default_left=default_left[splits],
        missing=np.full(len(splits), MISSING_NAN, np.int8),
        left=number[left[splits]].astype(np.int32),
        right=number[right[splits]].astype(np.int32),
        leaf_value=value[is_leaf].astype(np.float64),
        split_rows=rows[splits].astype(np.int32),
        leaf_rows=rows[is_leaf].astype(np.int32),
    )
    return tree, np.where(is_leaf, ~number, -1)


def _walk(tree: Tree, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) the leaf of each row."""
    at = np.zeros(len(rows), np.int64) if tree.n_splits else np.full(len(rows), -1)
    inside = np.flatnonzero(at >= 0)
    while len(inside):
        split = at[inside]
        x = rows[inside, tree.feature[split]].astype(np.float64)
        goes_left = (x <= tree.threshold[split]) | (np.isnan(x) & tree.default_left[split])
        at[inside] = np.where(goes_left, tree.left[split], tree.right[split])
        inside = inside[at[inside] >= 0]
    return ~at
