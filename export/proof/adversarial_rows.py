"""Rows made from the model itself, to catch an export that is nearly right. Pure: an Ensemble and a seed in, rows out.

Three kinds of rows:

- targeted: the row walks down to one split (the features of the path are set so that every split above says yes), and
  there it holds one value that is hard for this split: its threshold rounded down to float32, one ulp to either side,
  a member of its set plus a half, NaN, ...; splits that need different features share their rows;
- critical: every feature holds a hard value of some split of it, so that one row tries hundreds of splits at once;
- plain: every feature is drawn evenly from the range of its thresholds, as a sanity check.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saker.engine.onnx_trees import floor32
from saker.export.readers.ensemble import MISSING_NONE, MISSING_ZERO, ZERO_BAND, Ensemble, Tree

_NEAR_ZERO, _INFINITE = 1e-30, 1e30  # LightGBM writes 1e300 for an infinite threshold
_F32_BAND = np.float32(ZERO_BAND)
_TINY = np.float32(1e-36)
# Hard for every split: missing, infinite, the zeros, and the numbers inside, on and just outside LightGBM's zero band.
SPECIAL = np.array(
    [
        np.nan, np.inf, -np.inf, 0.0, -0.0, _TINY, -_TINY, _F32_BAND, -_F32_BAND,
        np.nextafter(_F32_BAND, np.float32(1)), np.nextafter(-_F32_BAND, np.float32(-1)),
    ],
    np.float32,
)  # fmt: skip
# Enough of them for a split whose threshold is far from zero.
_SPECIAL_FAR = np.array([np.nan, np.inf, -np.inf, 0.0, -_TINY], np.float32)
# Hard for every categorical split, in addition to SPECIAL: negative, in (-1, 0), fractional, and too large for an int32.
SPECIAL_CATEGORY = np.array([-1.0, -0.5, -1.5, 0.5, 1e9, 2.0**31, 1e20], np.float32)


@dataclass(frozen=True)
class AdversarialRows:
    """rows: float32 (n, f). The first n_targeted rows are targeted, the next n_critical critical, the last n_plain plain."""

    rows: NDArray[np.float32]
    n_targeted: int
    n_critical: int
    n_plain: int
    splits: int  # in the model
    splits_unreachable: int  # no row was found that gets there
    left_over: dict[int, list[int]]  # tree -> its splits that the limit left without rows of their own


def adversarial_rows(ensemble: Ensemble, *, max_rows: int, seed: int = 0) -> AdversarialRows:
    """Build at most max_rows rows: about four fifths targeted, when the model has as many.

    When max_rows is too small for all splits, as many are drawn, evenly over the trees.
    """
    rng = np.random.default_rng(seed)
    pools = critical_values(ensemble)
    n_targeted = max_rows * 4 // 5
    targeted, left_over, unreachable = _targeted(ensemble, pools, n_targeted, rng)
    n_rest = max(2, min(max_rows - n_targeted, max(256, len(targeted) // 4)))
    critical = _draw(pools, n_rest // 2, rng)
    plain = _plain(ensemble, n_rest - n_rest // 2, rng)
    return AdversarialRows(
        rows=np.concatenate([targeted, critical, plain]),
        n_targeted=len(targeted),
        n_critical=len(critical),
        n_plain=len(plain),
        splits=sum(tree.n_splits for tree in ensemble.trees),
        splits_unreachable=unreachable,
        left_over=left_over,
    )


def around32(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each threshold rounded down to float32, and one ulp below and above that."""
    at = floor32(threshold)
    with np.errstate(over="ignore"):  # above the largest float32 there is infinity, which is as hard a value
        return np.concatenate([at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))])


def hard_values(tree: Tree, split: int) -> NDArray[np.float32]:
    """The values that this split may get wrong, float32 (v,)."""
    if tree.categorical[split]:
        members = tree.categories[split]
        if len(members) == 0:
            return np.concatenate([SPECIAL_CATEGORY, SPECIAL])
        absent = np.ones(members[-1] + 2, bool)  # not np.setdiff1d: that sorts and hashes millions of numbers
        absent[members] = False
        holes = np.flatnonzero(absent)  # not empty: the number after the last member
        ends = np.array([members[0], members[len(members) // 2], members[-1], holes[0], holes[len(holes) // 2], holes[-1]])
        return np.concatenate([ends, ends[:4] + 0.5, SPECIAL_CATEGORY, SPECIAL]).astype(np.float32)
    special = SPECIAL if abs(tree.threshold[split]) < _NEAR_ZERO else _SPECIAL_FAR
    return np.concatenate([around32(tree.threshold[split : split + 1]), special])


def critical_values(ensemble: Ensemble) -> list[NDArray[np.float32]]:
    """By feature: every hard value of every split of it. A feature that no split reads has SPECIAL."""
    thresholds: list[list[float]] = [[] for _ in range(ensemble.n_features)]
    categories: list[set[float]] = [set() for _ in range(ensemble.n_features)]
    for tree in ensemble.trees:
        for split in np.flatnonzero(tree.categorical).tolist():
            categories[tree.feature[split]].update(hard_values(tree, split).tolist())
        for feature, threshold in zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True):
            thresholds[feature].append(threshold)
    special = (
        SPECIAL
        if ensemble.missing_value is None
        else np.append(SPECIAL, around32(np.array([ensemble.missing_value], np.float64)))
    )
    pools = []
    for borders, members in zip(thresholds, categories, strict=True):
        found = np.array([value for value in members if not math.isnan(value)], np.float32)
        pools.append(np.unique(np.concatenate([around32(np.unique(borders)), found, special])))
    return pools


def goes_left(tree: Tree, split: int, value: np.float32) -> bool:
    """LightGBM's decision (Tree::Decision of include/LightGBM/tree.h), for choosing values; the proof does not rest on it."""
    x = float(value)
    if tree.categorical[split]:
        return bool(-1 < x < 2**31) and int(x) in tree.categories[split]
    if math.isnan(x) and tree.missing[split] == MISSING_NONE:
        x = 0.0
    if math.isnan(x) or (abs(x) <= ZERO_BAND and tree.missing[split] == MISSING_ZERO):
        return bool(tree.default_left[split])
    return bool(x <= tree.threshold[split])


@dataclass
class _Block:
    """Rows under construction: as many as a split has hard values, shared by splits whose features do not overlap."""

    n_rows: int
    fixed: dict[int, np.float32]  # feature -> the value that leads down to some split of the block
    varied: dict[int, NDArray[np.float32]]  # feature -> (n_rows,) the hard values of such a split

    def admits(self, features: set[int]) -> bool:
        return features.isdisjoint(self.fixed) and features.isdisjoint(self.varied)


_OPEN_BLOCKS = 8  # of each size; more would pack a little tighter and take longer


def _targeted(
    ensemble: Ensemble, pools: list[NDArray[np.float32]], max_rows: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], dict[int, list[int]], int]:
    owner = np.repeat(np.arange(len(ensemble.trees)), [tree.n_splits for tree in ensemble.trees])
    local = np.concatenate([np.arange(tree.n_splits) for tree in ensemble.trees])
    paths: dict[int, Paths] = {}
    blocks: list[_Block] = []
    unfilled: dict[int, list[_Block]] = defaultdict(list)
    n_rows = unreachable = 0
    order = _evenly(owner, rng)
    taken = 0
    for index in order.tolist():
        number, split = int(owner[index]), int(local[index])
        tree = ensemble.trees[number]
        if number not in paths:
            paths[number] = Paths(tree)
        path = paths[number].to(split)
        if path is None:
            unreachable, taken = unreachable + 1, taken + 1
            continue
        values, feature = hard_values(tree, split), int(tree.feature[split])
        path.pop(feature, None)  # the value to vary is itself needed to reach this split
        features = {feature, *path}
        candidates = unfilled[len(values)]
        block = next((block for block in candidates if block.admits(features)), None)
        if block is None:
            if n_rows + len(values) > max_rows:
                break
            block = _Block(len(values), {}, {})
            n_rows += len(values)
            blocks.append(block)
            candidates.append(block)
            del candidates[:-_OPEN_BLOCKS]
        block.fixed.update(path)
        block.varied[feature] = rng.permutation(values)
        taken += 1
    left_over: dict[int, list[int]] = defaultdict(list)
    for index in order[taken:].tolist():
        left_over[int(owner[index])].append(int(local[index]))
    rows = _draw(pools, sum(block.n_rows for block in blocks), rng)
    start = 0
    for block in blocks:
        part = rows[start : start + block.n_rows]
        part[:, list(block.fixed)] = list(block.fixed.values())
        for feature, values in block.varied.items():
            part[:, feature] = values
        start += block.n_rows
    return rows, left_over, unreachable


def _evenly(owner: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """An order of all splits in which any beginning has about as many of each tree."""
    order = rng.permutation(len(owner))
    position = np.empty(len(owner), np.int64)
    counts: dict[int, int] = defaultdict(int)
    for index in order.tolist():
        position[index] = counts[owner[index]]
        counts[owner[index]] += 1
    return order[np.argsort(position[order], kind="stable")]


class Paths:
    """How a row gets to each split of one tree: what the features above it have to be. Lives while rows are made."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        m = tree.n_splits
        self._above = [-1] * m  # the parent of each split
        self._left = [False] * m  # whether it is the parent's left child
        self._value: list[np.float32 | None] = [None] * m  # what the parent's feature has to be; None: nothing found
        self._feature: list[int] = tree.feature.tolist()
        children = (tree.left.tolist(), tree.right.tolist())
        stack = [0] if m else []
        while stack:
            parent = stack.pop()
            for side, is_left in zip(children, (True, False), strict=True):
                child = side[parent]
                if child >= 0:
                    self._above[child], self._left[child] = parent, is_left
                    self._value[child] = self._choose(child)
                    stack.append(child)

    def to(self, split: int) -> dict[int, np.float32] | None:
        """Values by feature with which a row gets to the split; None when none was found (real ones are always there)."""
        found: dict[int, np.float32] = {}
        node = split
        while (parent := self._above[node]) >= 0:
            value = self._value[node]
            if value is None:
                return None
            found.setdefault(self._feature[parent], value)  # the lowest on the path was chosen for all of it
            node = parent
        return found

    def _choose(self, node: int) -> np.float32 | None:
        """A value of the parent's feature that takes every branch on the path that this feature decides."""
        feature, wanted, candidates = self._feature[self._above[node]], [], []
        while (parent := self._above[node]) >= 0:
            if self._feature[parent] == feature:
                wanted.append((parent, self._left[node]))
                if (known := self._value[node]) is not None:
                    candidates.append(known)
            node = parent

        def leads_here(value: np.float32) -> bool:
            return all(goes_left(self._tree, split, value) == is_left for split, is_left in wanted)

        if candidates and leads_here(candidates[0]):
            return candidates[0]
        return next((value for value in _candidates(self._tree, wanted) if leads_here(value)), None)


def _candidates(tree: Tree, wanted: list[tuple[int, bool]]) -> NDArray[np.float32]:
    """Values of which one takes all the wanted branches, if any does: the ends of the interval, a set's members, SPECIAL."""
    sets = [tree.categories[split] for split, is_left in wanted if tree.categorical[split] and is_left]
    numeric = [(split, is_left) for split, is_left in wanted if not tree.categorical[split]]
    parts = [SPECIAL]
    if sets:
        parts.insert(0, min(sets, key=len).astype(np.float32))
    elif not numeric:
        parts.insert(0, np.array([-1.0], np.float32))
    if numeric:
        threshold = tree.threshold[[split for split, _ in numeric]]
        to_left = np.array([is_left for _, is_left in numeric])
        high = floor32(threshold[to_left].min(initial=np.inf, keepdims=True))
        low = around32(threshold[~to_left].max(initial=-np.inf, keepdims=True))[2:]
        middle = high / 2 + low / 2 if np.isfinite(high) and np.isfinite(low) else high
        parts.insert(0, np.concatenate([middle, high, low]))
    return np.concatenate(parts)


def _draw(pools: list[NDArray[np.float32]], n_rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    rows = np.empty((n_rows, len(pools)), np.float32)
    for feature, pool in enumerate(pools):
        rows[:, feature] = pool[rng.integers(len(pool), size=n_rows)]
    return rows


def _plain(ensemble: Ensemble, n_rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    low, high = np.zeros(ensemble.n_features), np.zeros(ensemble.n_features)
    is_category = np.zeros(ensemble.n_features, np.bool_)
    for tree in ensemble.trees:
        for split in np.flatnonzero(tree.categorical).tolist():
            high[tree.feature[split]] = max(high[tree.feature[split]], tree.categories[split].max(initial=0))
        is_category[tree.feature[tree.categorical]] = True
        numeric = ~tree.categorical & (np.abs(tree.threshold) < _INFINITE)
        np.minimum.at(low, tree.feature[numeric], tree.threshold[numeric])
        np.maximum.at(high, tree.feature[numeric], tree.threshold[numeric])
    margin = (high - low) / 10 + 1
    rows = rng.uniform(low - margin, high + margin, size=(n_rows, ensemble.n_features)).astype(np.float32)
    return np.where(is_category, np.floor(rows), rows)
