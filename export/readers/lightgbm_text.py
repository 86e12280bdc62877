"""Reads LightGBM's model text into an `Ensemble`. Pure: text in, value out.

    header   tree / version=v4 / num_class=.. / objective=.. / feature_names=..        (key=value lines)
    Tree=0   num_leaves=.. / split_feature=.. / threshold=.. / decision_type=.. ..     (one block a tree)
    end of trees

The text and not `dump_model`: both print 17 significant digits for thresholds and leaf values, which identify a double,
but the JSON nests as deep as the tree (Python's parser recurses) and takes about ten times as long. LightGBM of any
version since 2.2 writes version v2, v3 or v4.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.export.errors import BrokenModel, UnsupportedModel
from saker.export.readers.ensemble import MISSING_NAN, Ensemble, Tree, effective_threshold

FORMATS = ("v2", "v3", "v4")
_CATEGORICAL_BIT, _DEFAULT_LEFT_BIT = 1, 2  # kCategoricalMask, kDefaultLeftMask of include/LightGBM/tree.h


def parse_model_text(text: str) -> Ensemble:
    """Read a model.txt, or what `Booster.model_to_string` returns.

    Raises BrokenModel when the text contradicts itself, UnsupportedModel for a file format that is not in FORMATS, for a
    model without trees and for linear trees.
    """
    header_text, *blocks = _before(text, "\nend of trees").split("\nTree=")
    header = _fields(header_text)
    version = header.get("version", "unknown")
    if version not in FORMATS:
        raise UnsupportedModel("model format", f"expected version {' or '.join(FORMATS)}, got {version!r}")
    names = tuple(_require(header, "feature_names", "the header").split(" "))
    n_features = int(_require(header, "max_feature_idx", "the header")) + 1
    if len(names) != n_features:
        raise BrokenModel("feature names", f"expected {n_features} names (max_feature_idx + 1), got {len(names)}")
    n_outputs = int(header.get("num_tree_per_iteration", header.get("num_class", "1")))
    if n_outputs < 1 or n_outputs != int(header.get("num_class", n_outputs)):
        raise BrokenModel("trees", f"{n_outputs} trees an iteration, but num_class is {header['num_class']}")
    if not blocks:
        raise UnsupportedModel("no trees", "the model has no tree, so there is nothing to score")
    if len(blocks) % n_outputs:
        raise BrokenModel("trees", f"{len(blocks)} trees do not divide by {n_outputs} trees an iteration")
    infos = _require(header, "feature_infos", "the header").split(" ")
    if len(infos) != n_features:
        raise BrokenModel("feature_infos", f"expected one for each of {n_features} features, got {len(infos)}")
    words = header.get("objective", "custom").split(" ")
    options = dict(word.split(":", 1) for word in words[1:] if ":" in word)
    return Ensemble(
        source=f"LightGBM {version}",
        objective=words[0],
        sigmoid=float(options.get("sigmoid", "1")),
        square_root="sqrt" in words[1:],
        averaged="average_output" in header,
        n_outputs=n_outputs,
        feature_names=names,
        codes=tuple(_largest_code(info) for info in infos),
        counts=tuple(_largest_count(info) for info in infos),
        trees=tuple(_tree(index, block, n_features) for index, block in enumerate(blocks)),
    )


def _largest_code(info: str) -> int | None:
    """`feature_infos` has [low:high] for numbers, the codes 0:3:7 for categories, `none` for a column without splits."""
    return None if info == "none" or info.startswith("[") or not info else max(map(int, info.split(":")))


def _largest_count(info: str) -> int | None:
    """The largest of a number that was whole and not negative, as the codes of an ordered pandas category are."""
    low, _, high = info.strip("[]").partition(":")
    return int(high) if info.startswith("[") and low.isdigit() and high.isdigit() else None


def _tree(index: int, block: str, n_features: int) -> Tree:
    # The block starts with what followed "Tree=": its own number, which is of no use.
    fields = _fields(block.partition("\n")[2])
    where = f"tree {index}"
    if fields.get("is_linear", "0") != "0":
        raise UnsupportedModel(
            "linear_tree", f"{where} has linear models in its leaves; train with linear_tree=False to export the model"
        )
    n_leaves = int(_require(fields, "num_leaves", where))
    n_splits = n_leaves - 1
    if n_leaves < 1:
        raise BrokenModel("num_leaves", f"{where} has {n_leaves} leaves")

    def array(key: str, dtype: type, length: int, default: Callable[[], NDArray[Any]] | None = None) -> NDArray[Any]:
        if length == 0:
            return np.zeros(0, dtype)
        if key not in fields and default is not None:
            return default()
        return _numbers(_require(fields, key, where), dtype, length, f"{key} of {where}")

    decision = array("decision_type", np.int32, n_splits, lambda: np.zeros(n_splits, np.int32))
    threshold = array("threshold", np.float64, n_splits)
    categorical = (decision & _CATEGORICAL_BIT) > 0
    tree = Tree(
        feature=array("split_feature", np.int32, n_splits),
        threshold=effective_threshold(threshold),
        categorical=categorical,
        default_left=(decision & _DEFAULT_LEFT_BIT) > 0,
        missing=((decision >> 2) & 3).astype(np.int8),
        left=array("left_child", np.int32, n_splits),
        right=array("right_child", np.int32, n_splits),
        leaf_value=array("leaf_value", np.float64, n_leaves),
        # Old files leave the counts out of trees with a single leaf, and LightGBM itself reads a missing one as 0.
        split_rows=array("internal_count", np.int32, n_splits, lambda: np.zeros(n_splits, np.int32)),
        leaf_rows=array("leaf_count", np.int32, n_leaves, lambda: np.zeros(n_leaves, np.int32)),
        categories=_category_sets(fields, threshold, categorical, where) if categorical.any() else {},
    )
    _check(tree, n_features, where)
    return tree


def _category_sets(
    fields: dict[str, str], threshold: NDArray[np.float64], categorical: NDArray[np.bool_], where: str
) -> dict[int, NDArray[np.int64]]:
    """Unpack the bit sets: the threshold of a categorical split is the number of its set, `cat_boundaries` has its words."""
    n_sets = int(_require(fields, "num_cat", where))
    borders = _numbers(_require(fields, "cat_boundaries", where), np.int64, n_sets + 1, f"cat_boundaries of {where}")
    n_words = int(borders[-1])
    words = _numbers(_require(fields, "cat_threshold", where), np.uint32, n_words, f"cat_threshold of {where}")
    sets = {}
    for split in np.flatnonzero(categorical):
        number = threshold[split]
        if not 0 <= number < n_sets:
            raise BrokenModel("category set", f"split {split} of {where} refers to set {number}, there are {n_sets}")
        mine = words[borders[int(number)] : borders[int(number) + 1]]
        bits = np.unpackbits(mine.astype("<u4").view(np.uint8), bitorder="little")
        sets[int(split)] = np.flatnonzero(bits).astype(np.int64)
    return sets


def _check(tree: Tree, n_features: int, where: str) -> None:
    """Each split and each leaf has one parent, and is below the root: then the walk ends, and ends in this tree."""
    if tree.n_splits == 0:
        return
    if tree.feature.min() < 0 or tree.feature.max() >= n_features:
        raise BrokenModel("split_feature", f"{where} uses a feature outside 0..{n_features - 1}")
    if tree.missing.max() > MISSING_NAN:
        raise BrokenModel("decision_type", f"{where} has the missing type {tree.missing.max()}")
    children = np.concatenate([tree.left, tree.right])
    expected = np.concatenate([np.arange(-tree.n_leaves, 0), np.arange(1, tree.n_splits)])
    if not np.array_equal(np.sort(children), expected):
        raise BrokenModel("children", f"{where} is not a tree: a split or leaf has no parent or several parents")
    seen, frontier = 1, [0]
    while frontier:
        nodes = np.array(frontier)
        below = np.concatenate([tree.left[nodes], tree.right[nodes]])
        frontier = below[below >= 0].tolist()
        seen += len(frontier)
    if seen != tree.n_splits:
        raise BrokenModel("children", f"{where} has splits that cannot be reached from the root")


def _fields(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in text.split("\n")) if key}


def _before(text: str, mark: str) -> str:
    body, found, _ = text.partition(mark)
    if not found:
        raise BrokenModel("model text", f"expected the line {mark.strip()!r}; the text is truncated or not a LightGBM model")
    return body


def _require(fields: dict[str, str], key: str, where: str) -> str:
    try:
        return fields[key]
    except KeyError:
        raise BrokenModel(key, f"{where} has no {key}") from None


def _numbers(text: str, dtype: type, length: int, what: str) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.array(text.split(), dtype)
    except (ValueError, OverflowError) as error:
        raise BrokenModel(what, str(error)) from None
    if len(values) != length:
        raise BrokenModel(what, f"expected {length} numbers, got {len(values)}")
    if dtype is np.float64 and not math.isfinite(values.sum()) and np.isnan(values).any():
        raise BrokenModel(what, "has a NaN")
    return values
