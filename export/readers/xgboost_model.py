"""XGBoost as a `Source`: Booster or estimator, read from its JSON.

An estimator is taken as it predicts: up to its best iteration, where training stopped early, and with its `missing`. A Booster
uses all its trees.

XGBoost computes in float32: it goes left where `x < t`, adds the leaves to the base margin in float32, and returns float32.
The decisions are exact here (for a float32 x, `x < t` is `x <= the float32 below t`), so every row ends in the same leaves;
the sum is made in float64, and differs from XGBoost's own by XGBoost's rounding. The base margin is part of the first tree.

Refused by name: categorical splits, linear boosters, trees with vector leaves, several parallel trees, and objectives whose
`predict` is not a function of the margin that TRANSFORMS knows.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.export.errors import BrokenModel, UnsupportedModel
from saker.export.readers.ensemble import MISSING_NAN, MISSING_VALUE, Ensemble, Tree
from saker.export.readers.source import of_last_class, predicted

# The objective's link: how `base_score`, a value like the target, becomes a margin.
_LOGIT = ("binary:logistic", "reg:logistic")  # not binary:logitraw, whose base score is a margin already
_LOG = ("count:poisson", "reg:gamma", "reg:tweedie")


class XGBoostSource:
    """Reads the Booster and does not change it. Infinities are not admissible: XGBoost refuses them in a DMatrix."""

    exact = False
    relative_tolerance = 1e-6
    sum_epsilon = float(np.finfo(np.float32).eps)

    def __init__(self, model: Any, iterations: int | None = None) -> None:
        self._estimator = model if hasattr(model, "get_booster") else None
        booster = model if self._estimator is None else model.get_booster()
        # As in the estimator's own `predict`.
        if self._estimator is not None and iterations is None and (best := booster.attr("best_iteration")) is not None:
            iterations = int(best) + 1
        total = booster.num_boosted_rounds()
        if iterations is not None and not 1 <= iterations <= total:
            raise ValueError(f"iterations: expected 1..{total}, got {iterations}")
        # Slice only if necessary: a linear booster cannot be sliced, and is rejected by name later.
        self._booster = booster if iterations in (None, total) else booster[:iterations]
        self._missing = np.float32(np.nan if self._estimator is None else self._estimator.missing)
        self.ensemble, self._nodes = _read(json.loads(self._booster.save_raw("json")), self._missing)
        if self._estimator is not None and self.ensemble.objective == "multi:softmax":
            self.ensemble = replace(self.ensemble, objective="multi:softprob")  # which `predict_proba` makes of it

    def margins(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        return self._predict(rows, threads, output_margin=True)

    def scores(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        if self._estimator is None:
            return self._predict(rows, threads)
        self._estimator.get_booster().set_param({"nthread": threads})
        result = predicted(self._estimator, rows, validate_features=False, iteration_range=(0, self.ensemble.iterations))
        return of_last_class(result, self.ensemble.n_outputs)

    def leaves(self, rows: NDArray[np.float32], threads: int, iteration: int | None = None) -> NDArray[np.int64]:
        until = (0, 0 if iteration is None else iteration + 1)  # XGBoost has no leaves of later iterations alone
        trees = self.ensemble.of(iteration)
        nodes = self._predict(rows, threads, pred_leaf=True, iteration_range=until).astype(np.int64)[:, trees]
        return np.stack([of[nodes[:, tree]] for tree, of in enumerate(self._nodes[trees])], axis=1)

    def leaf_values(self, tree: int) -> NDArray[np.float64]:
        return self.ensemble.trees[tree].leaf_value

    def admissible(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        largest = np.finfo(np.float32).max
        return np.clip(rows, -largest, largest)  # NaN stays

    def _predict(self, rows: NDArray[np.float32], threads: int, **what: Any) -> NDArray[np.float64]:
        import xgboost

        matrix = xgboost.DMatrix(rows, missing=self._missing, nthread=threads, feature_names=self._booster.feature_names)
        self._booster.set_param({"nthread": threads})
        result = self._booster.predict(matrix, validate_features=False, **what)
        return np.asarray(result, np.float64).reshape(len(rows), -1)


def _read(document: dict[str, Any], missing: np.float32) -> tuple[Ensemble, list[NDArray[np.int64]]]:
    """The trees, and for each of them the leaf number by node number (-1 where the node is no leaf)."""
    learner = document["learner"]
    parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
    if booster["name"] not in ("gbtree", "dart"):
        raise UnsupportedModel("booster", f"expected gbtree or dart, got {booster['name']!r}")
    weights = booster.get("weight_drop")
    model = booster.get("gbtree", booster)["model"]
    if int(parameters.get("num_target", "1")) > 1:
        raise UnsupportedModel("targets", "the model has several targets")
    if int(model["gbtree_model_param"].get("num_parallel_tree", "1")) != 1:
        raise UnsupportedModel("num_parallel_tree", "expected 1 tree an iteration and class; train with num_parallel_tree=1")
    k = max(1, int(parameters["num_class"]))
    if not model["trees"]:
        raise UnsupportedModel("no trees", "the model has no tree, so there is nothing to score")
    if model["tree_info"] != [index % k for index in range(len(model["trees"]))]:
        raise BrokenModel("tree_info", "the trees do not take turns over the classes")
    objective = learner["objective"]["name"]
    base = _base_margin(parameters["base_score"], objective, k)
    n_features = int(parameters["num_feature"])
    trees, leaf_of_node = [], []
    for index, tree in enumerate(model["trees"]):
        weight = np.float32(weights[index] if weights else 1)
        start = base[index] if index < k else 0.0
        read, leaves = _tree(tree, weight, start, missing, f"tree {index}")
        trees.append(read)
        leaf_of_node.append(leaves)
    names = learner.get("feature_names") or [f"f{i}" for i in range(n_features)]
    ensemble = Ensemble(
        source=f"XGBoost {'.'.join(map(str, document['version']))}",
        objective=objective,
        sigmoid=1.0,
        square_root=False,
        averaged=False,
        n_outputs=k,
        feature_names=tuple(names),
        trees=tuple(trees),
        missing_value=None if np.isnan(missing) else missing,
    )
    return ensemble, leaf_of_node


def _base_margin(text: str, objective: str, k: int) -> NDArray[np.float64]:
    """(k,) the margin before the first tree. Since XGBoost 3.1 the text is a list, one number for each class."""
    scores = np.array(json.loads(text) if text.startswith("[") else [float(text)], np.float32)
    margin = scores
    if objective in _LOGIT:
        margin = -np.log(np.float32(1) / scores - np.float32(1))
    elif objective in _LOG:
        margin = np.log(scores)
    return np.broadcast_to(margin.astype(np.float64), (k,))


def _tree(
    tree: dict[str, Any], weight: np.float32, start: float, missing: np.float32, where: str
) -> tuple[Tree, NDArray[np.int64]]:
    """One tree; `weight` is dart's, `start` is added to every leaf."""
    if any(tree.get("split_type", [])):
        raise UnsupportedModel("categorical splits", f"{where} has them; encode the categories as numbers to export the model")
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise UnsupportedModel("vector leaves", f"{where} has them; train with multi_strategy='one_output_per_tree'")
    left, right = np.array(tree["left_children"], np.int64), np.array(tree["right_children"], np.int64)
    is_leaf = left == -1
    number = np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(~is_leaf) - 1)  # ours, by XGBoost's node number
    splits = np.flatnonzero(~is_leaf)
    condition = np.array(tree["split_conditions"], np.float32)
    value = (condition[is_leaf] * weight).astype(np.float64) + start
    n = len(splits)
    read = Tree(
        feature=np.array(tree["split_indices"], np.int32)[splits],
        threshold=np.nextafter(condition[splits], np.float32(-np.inf)).astype(np.float64),
        categorical=np.zeros(n, np.bool_),
        default_left=np.array(tree["default_left"], np.bool_)[splits],
        missing=np.full(n, MISSING_NAN if np.isnan(missing) else MISSING_VALUE, np.int8),
        left=number[left[splits]].astype(np.int32),
        right=number[right[splits]].astype(np.int32),
        leaf_value=value,
        split_rows=np.zeros(n, np.int32),  # XGBoost keeps the sums of hessians, not the counts
        leaf_rows=np.zeros(n + 1, np.int32),
    )
    return read, np.where(is_leaf, ~number, -1)
