"""The proof of the splits that rows through the whole model do not reach: each tree alone, on rows made for its splits.

A row through the whole model walks all trees, so a large model has only room for some of its splits there. Alone, a tree
costs a thousandth: the file's own nodes, cut out of it (`LeafProbe`), against the library's leaves of that one iteration.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saker.export.proof.adversarial_rows import Paths, hard_values
from saker.export.proof.leaf_probe import LeafProbe
from saker.export.readers.ensemble import Tree
from saker.export.readers.source import Source


@dataclass(frozen=True, slots=True)
class TreeProof:
    rows: int  # each through the trees of one iteration
    rows_off: int  # of them in another leaf
    unreachable: int  # splits for which no row was found that gets there
    wrong: NDArray[np.float32]  # (w, f) the first few rows that are off


def check_trees(source: Source, probe: LeafProbe, left_over: dict[int, list[int]], threads: int, keep: int) -> TreeProof:
    """Compare the leaves of rows made for `left_over` (tree -> splits); keeps the first `keep` rows that differ."""
    ensemble = source.ensemble
    rows_made = rows_off = unreachable = 0
    wrong = np.zeros((0, ensemble.n_features), np.float32)
    for number, splits in left_over.items():
        made, lost = rows_for(ensemble.trees[number], splits, ensemble.n_features)
        unreachable += lost
        if len(made) == 0:
            continue
        rows = source.admissible(made)
        iteration = number // ensemble.n_outputs
        off = (source.leaves(rows, threads, iteration) != probe.leaves(rows, iteration)).any(axis=1)
        rows_made, rows_off = rows_made + len(rows), rows_off + int(off.sum())
        wrong = np.concatenate([wrong, rows[off][: keep - len(wrong)]])
    return TreeProof(rows_made, rows_off, unreachable, wrong)


def rows_for(tree: Tree, splits: list[int], n_features: int) -> tuple[NDArray[np.float32], int]:
    """Rows float32 (n, n_features): for each split all its hard values, led to it; and how many splits nothing leads to."""
    paths = Paths(tree)
    led = [(split, path) for split in splits if (path := paths.to(split)) is not None]
    values = [hard_values(tree, split) for split, _ in led]
    base = np.zeros((len(led), n_features), np.float32)
    for row, (_, path) in zip(base, led, strict=True):
        row[list(path)] = list(path.values())
    counts = [len(of) for of in values]
    rows = np.repeat(base, counts, axis=0)
    if led:
        rows[np.arange(len(rows)), np.repeat(tree.feature[[split for split, _ in led]], counts)] = np.concatenate(values)
    return rows, len(splits) - len(led)
