"""Why one row differs: the split, the leaf, the sum or the score at fault. Lives during one parity check."""

import numpy as np
from numpy.typing import NDArray

from saker.export.proof.distance import distance, rounding_floor
from saker.export.proof.leaf_probe import LeafProbe
from saker.export.proof.report import Fault
from saker.export.readers.ensemble import MISSING_NAMES, Tree
from saker.export.readers.source import Source

_SHOWN = 8


def explain(
    source: Source,
    probe: LeafProbe,
    rows: NDArray[np.float32],
    row: int,
    margins: tuple[NDArray[np.float64], NDArray[np.float64]],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> Fault:
    """Find the cause for one row (rows: float32 (1, f)): a split, a leaf, the sum, or the score."""
    ensemble = source.ensemble
    expected, got = _furthest(*margins)
    leaves, probed = source.leaves(rows, 1)[0], probe.leaves(rows)[0]
    for number in np.flatnonzero(leaves != probed).tolist():
        tree = ensemble.trees[number]
        split = _where_paths_part(tree, int(leaves[number]), int(probed[number]))
        feature, value = int(tree.feature[split]), float(rows[0, tree.feature[split]])
        return Fault(
            "split", row, expected, got, number, split, ensemble.feature_names[feature], value,
            f"row {row}: margin {got!r} instead of {expected!r}: tree {number}, split {split}: "
            f"{_split_text(tree, split, ensemble.feature_names[feature])}, at {value!r}",
        )  # fmt: skip
    values = probe.values(rows)[0]
    for number, leaf in enumerate(leaves.tolist()):
        right = float(ensemble.trees[number].leaf_value[leaf])
        if values[number] != right:
            text = f"row {row}: tree {number}, leaf {leaf} adds {float(values[number])!r} instead of {right!r}"
            return Fault("leaf", row, expected, got, number, detail=text)
    if scores is None or not abs(expected - got) <= rounding_floor(source) + source.relative_tolerance * abs(expected):
        return Fault(
            "sum", row, expected, got, detail=f"row {row}: same leaves, but the sum is {got!r} instead of {expected!r}"
        )
    expected, got = _furthest(*scores)
    return Fault(
        "score", row, expected, got, detail=f"row {row}: same margin, but the score is {got!r} instead of {expected!r}"
    )


def wrong_leaf_values(source: Source, probe: LeafProbe) -> list[Fault]:
    """Leaves that add something else in the file than in the library, whether or not a row reached them."""
    found = []
    for number in range(len(source.ensemble.trees)):
        expected, got = source.leaf_values(number), probe.leaf_values(number)
        for leaf in np.flatnonzero(expected != got).tolist():
            right, wrong = float(expected[leaf]), float(got[leaf])
            text = f"tree {number}, leaf {leaf} adds {wrong!r} instead of {right!r}"
            found.append(Fault("leaf", None, right, wrong, number, detail=text))
    return found


def _furthest(expected: NDArray[np.float64], got: NDArray[np.float64]) -> tuple[float, float]:
    """The output that differs most."""
    output = int(distance(got, expected)[1].argmax())
    return float(expected[output]), float(got[output])


def _where_paths_part(tree: Tree, leaf: int, other: int) -> int:
    """The split below which the two leaves lie on different sides."""
    above: dict[int, int] = {}
    for split in range(tree.n_splits):
        above[int(tree.left[split])] = above[int(tree.right[split])] = split
    path, node = set(), ~leaf
    while node in above:
        node = above[node]
        path.add(node)
    node = ~other
    while node not in path:
        node = above[node]
    return node


def _split_text(tree: Tree, split: int, name: str) -> str:
    if tree.categorical[split]:
        members = tree.categories[split].tolist()
        shown = ", ".join(map(str, members[:_SHOWN])) + (", ..." if len(members) > _SHOWN else "")
        return f"{name} in {{{shown}}}"
    side = "left" if tree.default_left[split] else "right"
    return f"{name} <= {float(tree.threshold[split])!r}, missing ({MISSING_NAMES[tree.missing[split]]}) goes {side}"
