"""Rows that lie where a conversion goes wrong: on every threshold of every tree, beside it, and on odd values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from export.booster import Ensemble, Tree

Rows = NDArray[np.float32]

_CHUNK = 2048
_BACKGROUNDS = 97


@dataclass(frozen=True, slots=True)
class _Range:
    """What the path to a node leaves open for one feature: low < x <= high, or some categories."""

    low: float = -np.inf
    high: float = np.inf
    only: frozenset[int] | None = None
    never: frozenset[int] = field(default_factory=frozenset)

    def value(self) -> float:
        """A float32 value in the range, as close to its upper end as there is one."""
        if self.only is not None:
            allowed = self.only - self.never
            return float(min(allowed)) if allowed else -1.0
        if self.never:
            return -1.0
        if self.high < np.inf:
            return float(floor32(self.high))
        return float(np.nextafter(floor32(self.low), np.float32(np.inf)))


def floor32(value: float) -> np.float32:
    """The largest float32 that is not above `value`; for float32 x, x <= value equals x <= floor32(value)."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > value else nearest


def adversarial_rows(ensemble: Ensemble, seed: int = 0) -> Iterator[Rows]:
    """Chunks of rows (k, f) float32.

    For every node of every tree there are rows that follow the path to it and then hold, in its feature, the threshold
    and its float32 neighbours, or a category of its set, one beside it, a fractional and a negative one; and NaN. The
    other features hold thresholds of their own and NaN. The first chunk begins with rows of NaN, infinities and zeros.
    """
    width = len(ensemble.feature_names)
    backgrounds = _backgrounds(ensemble, np.random.default_rng(seed))
    odd = [np.full(width, value, np.float32) for value in (np.nan, np.inf, -np.inf, 0.0, -0.0)]
    chunk = [*odd, *backgrounds]
    for tree in ensemble.trees:
        for node, path in _paths(tree):
            feature = int(tree.feature[node])
            for value in _values(tree, node):
                row = backgrounds[len(chunk) % _BACKGROUNDS].copy()
                for at, left_open in path.items():
                    row[at] = left_open.value()
                row[feature] = value
                chunk.append(row)
            if len(chunk) >= _CHUNK:
                yield np.array(chunk)
                chunk = []
    if chunk:
        yield np.array(chunk)


def _backgrounds(ensemble: Ensemble, random: np.random.Generator) -> Rows:
    """Rows of thresholds and categories drawn feature by feature, three in ten of the values missing."""
    rows = np.full((_BACKGROUNDS, len(ensemble.feature_names)), np.nan, np.float32)
    pools: dict[int, list[float]] = {}
    for tree in ensemble.trees:
        for node, feature in enumerate(tree.feature.tolist()):
            pools.setdefault(feature, []).extend(_values(tree, node)[:2])
    for feature, pool in pools.items():
        rows[:, feature] = random.choice(np.array(pool, np.float32), _BACKGROUNDS)
    rows[random.random(rows.shape) < 0.3] = np.nan  # noqa: PLR2004
    return rows


def _values(tree: Tree, node: int) -> list[float]:
    if node in tree.members:
        inside = tree.members[node]
        outside = next(code for code in range(len(inside) + 1) if code not in inside)
        return [float(inside[0]), float(outside), inside[-1] + 0.5, outside + 0.5, -0.5, -1.0, 1e6, np.nan]
    at = floor32(float(tree.threshold[node]))
    up, down = np.float32(np.inf), np.float32(-np.inf)
    return [float(at), float(np.nextafter(at, up)), float(np.nextafter(at, down)), np.nan, 0.0, 1e-35, -1e-35]


def _paths(tree: Tree) -> Iterator[tuple[int, dict[int, _Range]]]:
    """Every node with what the decisions above it demand of the features."""
    stack: list[tuple[int, dict[int, _Range]]] = [(0, {})] if len(tree.feature) else []
    while stack:
        node, path = stack.pop()
        yield node, path
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        so_far = path.get(feature, _Range())
        if node in tree.members:
            inside = frozenset(tree.members[node])
            left = replace(so_far, only=inside if so_far.only is None else so_far.only & inside)
            right = replace(so_far, never=so_far.never | inside)
        else:
            left = replace(so_far, high=min(so_far.high, threshold))
            right = replace(so_far, low=max(so_far.low, threshold))
        for child, demanded in ((int(tree.left[node]), left), (int(tree.right[node]), right)):
            if child >= 0:
                stack.append((child, {**path, feature: demanded}))
