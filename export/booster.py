"""A LightGBM Booster as plain arrays, read from its own text, which holds every number to the last bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import SakerError


class UnsupportedModel(SakerError):
    """The Booster cannot be written as ONNX exactly; the message names what stands in the way."""


# decision_type, LightGBM's include/LightGBM/tree.h: bit 0 categorical, bit 1 default left, bits 2 and 3 missing type.
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
# LightGBM's kZeroThreshold: its predict drops values no larger than this, so that they are 0 (src/c_api.cpp).
_ZERO = float(np.float32(1e-35))
_BELOW_ZERO = float(np.nextafter(np.float32(-1e-35), np.float32(-np.inf)))


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree. A child >= 0 is a node, a child < 0 is the leaf `~child`; a tree of one leaf has no nodes."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    categorical: NDArray[np.bool_]
    #: Where NaN goes. For a category that is always right, as is everything outside the set.
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.float64]
    #: Node -> the categories that go left.
    members: dict[int, list[int]]


@dataclass(frozen=True, slots=True)
class Ensemble:
    trees: list[Tree]
    feature_names: list[str]
    #: The score is 1 / (1 + exp(-sigmoid * sum of leaves)).
    sigmoid: float


def read_booster(booster: Any) -> Ensemble:
    """Parse `booster` (lightgbm.Booster) up to its best iteration; raises `UnsupportedModel`."""
    text: str = booster.model_to_string(num_iteration=booster.best_iteration)
    header, *sections = text.split("\n\nend of trees", 1)[0].split("\nTree=")
    fields = _fields(header)
    if "average_output" in header.splitlines():
        raise UnsupportedModel("boosting type rf (it averages its trees): only sums of trees are exported")
    objective, *parameters = fields.get("objective", "none").split(" ")
    if objective != "binary":
        raise UnsupportedModel(f"objective {objective}: only binary is exported")
    sigmoid = dict(parameter.split(":") for parameter in parameters if ":" in parameter).get("sigmoid", "1")
    trees = [_tree(index, _fields(section)) for index, section in enumerate(sections)]
    if not trees:
        raise UnsupportedModel("a Booster without trees")
    return Ensemble(trees, fields["feature_names"].split(" "), float(sigmoid))


def categorical_features(ensemble: Ensemble) -> list[int]:
    """Features that some tree splits by membership."""
    return sorted({int(feature) for tree in ensemble.trees for feature in tree.feature[tree.categorical]})


def _fields(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.splitlines() if "=" in line)


def _tree(index: int, fields: dict[str, str]) -> Tree:
    def integers(name: str) -> NDArray[np.int64]:
        return np.array(fields.get(name, "").split(), np.int64)

    def numbers(name: str) -> NDArray[np.float64]:
        return np.array(fields.get(name, "").split(), np.float64)

    if fields.get("is_linear", "0") != "0":
        raise UnsupportedModel(f"tree {index}: linear leaves (linear_tree=true)")
    kind, threshold = integers("decision_type"), numbers("threshold")
    categorical = (kind & _CATEGORICAL) != 0
    missing = (kind >> _MISSING_SHIFT) & 3
    if (zero := np.flatnonzero(~categorical & (missing == _MISSING_ZERO))).size:
        raise UnsupportedModel(f"tree {index}, node {zero[0]}: zero is missing (zero_as_missing=true)")
    # Without a missing type LightGBM takes NaN as 0.
    default = (kind & _DEFAULT_LEFT) != 0
    missing_left = ~categorical & np.where(missing == _MISSING_NAN, default, threshold >= 0)

    # For float32 x, `(0 if |x| <= _ZERO else x) <= t` is `x <= t` with a threshold on the edge of that band.
    threshold = np.where(~categorical & (threshold >= 0) & (threshold < _ZERO), _ZERO, threshold)
    threshold = np.where(~categorical & (threshold < 0) & (threshold >= -_ZERO), _BELOW_ZERO, threshold)

    words, bounds = integers("cat_threshold"), integers("cat_boundaries")
    members = {}
    for node in np.flatnonzero(categorical):
        at = int(threshold[node])
        bitset = words[bounds[at] : bounds[at + 1]]
        members[int(node)] = [32 * w + bit for w, word in enumerate(bitset) for bit in range(32) if word >> bit & 1]
    return Tree(
        integers("split_feature"),
        threshold,
        categorical,
        missing_left,
        integers("left_child"),
        integers("right_child"),
        numbers("leaf_value"),
        members,
    )
