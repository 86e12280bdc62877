"""The file holds all that exact contributions need: Shapley values from nothing but the file are LightGBM's `pred_contrib`."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saker.export.onnx_writer.metadata import read_training_rows, tree_attributes
from saker.export.selfcheck.model_zoo import features, written

MEMBER = 6


class Trees:
    """The TreeEnsemble of a file, walked row by row; only for models whose columns are the input's own."""

    def __init__(self, model: Any) -> None:
        self.attributes = tree_attributes(model)
        self.node_rows, self.leaf_rows = read_training_rows(model)
        self.sets: dict[int, set[float]] = {}
        members = iter(self.attributes.get("membership_values", []))
        for node in np.flatnonzero(self.attributes["nodes_modes"] == MEMBER).tolist():
            self.sets[node] = set(_until_nan(members))

    def goes_left(self, node: int, x: NDArray[np.float32]) -> bool:
        value = float(x[self.attributes["nodes_featureids"][node]])
        if node in self.sets:
            return np.trunc(value) in self.sets[node]
        if np.isnan(value):
            return bool(self.attributes["nodes_missing_value_tracks_true"][node])
        return bool(value <= self.attributes["nodes_splits"][node])

    def expected(self, x: NDArray[np.float32], known: frozenset[int], at: int, is_leaf: bool) -> tuple[float, int]:
        """Expected value below a node when only some features are known, and the training rows that passed it."""
        if is_leaf:
            return float(self.attributes["leaf_weights"][at]), int(self.leaf_rows[at])
        branches = [
            self.expected(
                x,
                known,
                int(self.attributes[f"nodes_{side}nodeids"][at]),
                bool(self.attributes[f"nodes_{side}leafs"][at]),
            )
            for side in ("true", "false")
        ]
        rows = int(self.node_rows[at])
        if int(self.attributes["nodes_featureids"][at]) in known:
            return branches[0 if self.goes_left(at, x) else 1][0], rows
        return sum(value * share for value, share in branches) / rows, rows

    def shapley(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(f + 1,) by the definition: the mean over all orders in which the features become known; last the expectation."""
        f = len(x)
        total = np.zeros(f + 1)
        for root in self.attributes["tree_roots"].tolist():
            value = {
                known: self.expected(x, known, root, False)[0]
                for size in range(f + 1)
                for known in map(frozenset, combinations(range(f), size))
            }
            for known, before in value.items():
                weight = factorial(len(known)) * factorial(f - len(known) - 1) / factorial(f) if len(known) < f else 0
                for feature in set(range(f)) - known:
                    total[feature] += weight * (value[known | {feature}] - before)
            total[f] += value[frozenset()]
        return total


def _until_nan(numbers: Any) -> list[float]:
    found = []
    for number in numbers:
        if np.isnan(number):
            break
        found.append(float(number))
    return found


@pytest.mark.parametrize("name", ["binary", "category_40", "missing_none", "single_leaf", "goss", "sklearn_regressor"])
def test_shapley_values_from_the_file(name: str, trained: Any) -> None:
    rows = features(seed=8)[:6]
    rows[0] = np.nan
    trees = Trees(written(trained(name)))
    booster = getattr(trained(name), "booster_", trained(name))
    np.testing.assert_allclose(
        [trees.shapley(x) for x in rows], booster.predict(rows, pred_contrib=True), rtol=1e-9, atol=1e-12
    )
