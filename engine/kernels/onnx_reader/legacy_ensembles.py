"""The tree operators that other converters write, `TreeEnsembleClassifier` and `TreeEnsembleRegressor` (ai.onnx.ml 1 to 3), in
the terms of ai.onnx.ml 5.

    Graph --with_tree_ensemble--> Graph with one float32 TreeEnsemble, and the nodes for what the operator did behind its sums

What the standard leaves open is read as onnxruntime reads it (tree_ensemble_common.h and tree_ensemble_aggregator.h, 1.32): in
which order trees are added, and what a classifier of two classes makes of one sum. That this is right is not taken on trust:
every model is compared with onnxruntime when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.graph import Graph, Node
from saker.engine.onnx_trees import EQ, GT, GTE, LEQ, LT, MEMBER, NEQ

#: Of the nodes that are made here.
DOMAIN = "saker"
_CLASSIFIER, _REGRESSOR = "TreeEnsembleClassifier", "TreeEnsembleRegressor"
_MODES = {b"BRANCH_LEQ": LEQ, b"BRANCH_LT": LT, b"BRANCH_GTE": GTE, b"BRANCH_GT": GT, b"BRANCH_EQ": EQ, b"BRANCH_NEQ": NEQ}
_LEAF = b"LEAF"
_BINARY = 2


def with_tree_ensemble(graph: Graph) -> Graph:
    """The graph with its one older operator replaced, or as it is. Raises `Refused` for anything unknown."""
    found = [node for node in graph.nodes if node.op_type in (_CLASSIFIER, _REGRESSOR) and node.domain == "ai.onnx.ml"]
    if len(found) != 1:
        return graph
    node = found[0]
    behind = _Nodes(node.outputs[-1])
    sums = behind.name()
    if node.op_type == _CLASSIFIER:
        trees = _ensemble(node, "class", *_classes(node))
        scores = _classified(node, sums, behind)
    else:
        n_targets = node.attributes.get("n_targets")
        if not isinstance(n_targets, int):
            raise Refused(f"n_targets: expected a number, got {n_targets!r}")
        trees = _ensemble(node, "target", _integers(node, "target_ids"), n_targets)
        scores = _regressed(node, sums, n_targets, len(trees["tree_roots"]), behind)
    behind.add("Identity", scores, made=node.outputs[-1])
    place = graph.nodes.index(node)
    new = Node("TreeEnsemble", "ai.onnx.ml", node.inputs, (sums,), trees)
    return replace(
        graph,
        nodes=(*graph.nodes[:place], new, *behind.nodes, *graph.nodes[place + 1 :]),
        initializers=graph.initializers | behind.constants,
    )


class _Nodes:
    """Nodes that are being made, all in float32; their tensors are called after the operator's output."""

    def __init__(self, prefix: str) -> None:
        self._prefix, self._count = prefix, 0
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def name(self) -> str:
        self._count += 1
        return f"{self._prefix}/{self._count}"

    def constant(self, *values: float) -> str:
        name = self.name()
        self.constants[name] = np.array(values, np.float32)
        return name

    def add(self, operator: str, *inputs: str, made: str | None = None, **attributes: Any) -> str:
        """Returns the name of its output."""
        output = made or self.name()
        self.nodes.append(Node(operator, DOMAIN, inputs, (output,), attributes))
        return output

    def logistic(self, x: str) -> str:
        """As onnxruntime's ComputeLogistic: 1 / (1 + exp(-|x|)), and one minus that for negative values."""
        one = self.constant(1)
        v = self.add("Div", one, self.add("Add", one, self.add("Exp", self.add("Neg", self.add("Abs", x)))))
        return self.add("Where", self.add("Less", x, self.constant(0)), self.add("Sub", one, v), v)

    def softmax(self, x: str) -> str:
        """As onnxruntime's ComputeSoftmax."""
        row: dict[str, Any] = {"axes": np.array([1]), "keepdims": 1}
        e = self.add("Exp", self.add("Sub", x, self.add("ReduceMax", x, **row)))
        return self.add("Div", e, self.add("ReduceSum", e, **row))


def _classes(node: Node) -> tuple[NDArray[np.int64], int]:
    """The target of each weight, and how many targets there are: one for two classes with one sum."""
    of, n_classes = _integers(node, "class_ids"), _n_classes(node)
    if n_classes == _BINARY and not of.any():
        return of, 1
    if n_classes < _BINARY:
        raise Refused(f"expected two classes or more, got {n_classes}")
    return of, n_classes


def _n_classes(node: Node) -> int:
    return len(_integers(node, "classlabels_int64s")) or len(_words(node, "classlabels_strings"))


def _classified(node: Node, sums: str, behind: _Nodes) -> str:
    n_classes, base, transform = _n_classes(node), _floats(node, "base_values"), _word(node, "post_transform", b"NONE")
    if n_classes > _BINARY:
        return _transformed(transform, _with_base(sums, base, n_classes, behind), behind)
    if _integers(node, "class_ids").any():
        if len(base):
            raise Refused("base_values of two classes with a sum each")
        _expect_a_tree_of_each(node, "class", n_classes)
        return _transformed(transform, sums, behind)
    x = _with_base(sums, base, 1, behind)
    if transform == "LOGISTIC":
        return behind.add("Concat", behind.logistic(behind.add("Neg", x)), behind.logistic(x), axis=1)
    if transform != "NONE" or (_floats(node, "class_weights") < 0).any():
        raise Refused(f"post_transform {transform} of two classes with one sum, expected LOGISTIC, or NONE of probabilities")
    return behind.add("Concat", behind.add("Sub", behind.constant(1), x), x, axis=1)


def _regressed(node: Node, sums: str, n_targets: int, n_trees: int, behind: _Nodes) -> str:
    aggregate, transform = _word(node, "aggregate_function", b"SUM"), _word(node, "post_transform", b"NONE")
    if aggregate not in ("SUM", "AVERAGE"):
        raise Refused(f"aggregate_function: expected SUM or AVERAGE, got {aggregate}")
    x = sums if aggregate == "SUM" else behind.add("Div", sums, behind.constant(n_trees))
    if n_targets == 1 and transform != "NONE":
        raise Refused(f"post_transform {transform} of one target, expected NONE")
    base = _floats(node, "base_values")
    if n_targets > 1 and len(base):  # onnxruntime takes zero, not the base value, for a target no leaf of which is reached
        _expect_a_tree_of_each(node, "target", n_targets)
    return _transformed(transform, _with_base(x, base, n_targets, behind), behind)


def _expect_a_tree_of_each(node: Node, kind: str, n: int) -> None:
    """All of whose leaves are of that class or target."""
    pairs = np.unique(np.stack([_integers(node, f"{kind}_treeids"), _integers(node, f"{kind}_ids")]), axis=1)
    trees, count = np.unique(pairs[0], return_counts=True)
    if len(np.unique(pairs[1][np.isin(pairs[0], trees[count == 1])])) < n:
        raise Refused(f"{kind}_ids: expected a tree of each {kind} alone")


def _with_base(x: str, base: NDArray[np.float32], n: int, behind: _Nodes) -> str:
    if len(base) not in (0, n):
        raise Refused(f"base_values: expected {n}, got {len(base)}")
    return behind.add("Add", x, behind.constant(*base)) if len(base) else x


def _transformed(transform: str, x: str, behind: _Nodes) -> str:
    if transform == "NONE":
        return x
    if transform not in ("LOGISTIC", "SOFTMAX"):
        raise Refused(f"post_transform: expected NONE, LOGISTIC or SOFTMAX, got {transform}")
    return behind.logistic(x) if transform == "LOGISTIC" else behind.softmax(x)


@dataclass(frozen=True)
class _Branches:
    """Arrays over the nodes that are no leaves. A reference is one of them (>= 0) or ~leaf (< 0)."""

    mode: NDArray[Any]
    feature: NDArray[Any]
    split: NDArray[Any]  # float32
    tracks: NDArray[Any]
    yes: NDArray[Any]  # reference
    no: NDArray[Any]  # reference

    def __len__(self) -> int:
        return len(self.mode)


def _ensemble(node: Node, kind: str, targets: NDArray[np.int64], n_targets: int) -> dict[str, Any]:
    """The attributes of a TreeEnsemble (5). kind: class or target, as the names of the leaves' attributes begin."""
    tree, number = _integers(node, "nodes_treeids"), _integers(node, "nodes_nodeids")
    modes = np.array(_words(node, "nodes_modes"), "S16")
    if not len(tree) or not len(tree) == len(number) == len(modes):
        raise Refused(f"nodes_treeids, nodes_nodeids, nodes_modes: {len(tree)}, {len(number)}, {len(modes)} of them")
    places, is_leaf = _Places(tree, number), modes == _LEAF
    reference = np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(~is_leaf) - 1)
    weights, of = _leaves(node, kind, targets, places, reference)
    starts = np.flatnonzero(np.concatenate(([True], tree[1:] != tree[:-1])))
    if len(np.unique(tree)) != len(starts):
        raise Refused("nodes_treeids: the nodes of a tree are not side by side")
    branches, roots = _rooted(_branches(node, tree, modes, places, reference), reference[starts])
    branches, roots, members = _with_sets(branches, roots)
    attributes = {
        "nodes_modes": branches.mode.astype(np.uint8),
        "nodes_featureids": branches.feature,
        "nodes_splits": branches.split,
        "nodes_missing_value_tracks_true": branches.tracks,
        "leaf_weights": weights,
        "leaf_targetids": of,
        "membership_values": members,
        "tree_roots": roots,
        "n_targets": n_targets,
    }
    for side, child in (("true", branches.yes), ("false", branches.no)):
        attributes |= {
            f"nodes_{side}nodeids": np.where(child < 0, ~child, child),
            f"nodes_{side}leafs": (child < 0).astype(int),
        }
    return attributes


def _leaves(
    node: Node, kind: str, targets: NDArray[np.int64], places: _Places, reference: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The number of each leaf, and its target."""
    weights = _floats(node, f"{kind}_weights")
    at = places.of(_integers(node, f"{kind}_treeids"), _integers(node, f"{kind}_nodeids"))
    if not len(at) == len(weights) == len(targets):
        raise Refused(f"{node.op_type}: {len(at)} leaves, {len(targets)} {kind}_ids and {len(weights)} {kind}_weights")
    leaf = ~reference[at]
    of_leaf = leaf >= 0  # onnxruntime takes no notice of the others, which old converters wrote
    leaf, n = leaf[of_leaf], int((reference < 0).sum())
    if (np.bincount(leaf, minlength=n) != 1).any():
        raise Refused(f"{kind}_nodeids: a leaf with no number or with several")
    order = np.argsort(leaf)
    return weights[of_leaf][order], targets[of_leaf][order]


def _branches(
    node: Node, tree: NDArray[np.int64], modes: NDArray[Any], places: _Places, reference: NDArray[np.int64]
) -> _Branches:
    is_branch = reference >= 0

    def of_branches(values: NDArray[Any]) -> NDArray[Any]:
        if len(values) != len(tree):
            raise Refused(f"{node.op_type}: {len(tree)} nodes, and an attribute of {len(values)} values")
        return values[is_branch]

    def child(side: str) -> NDArray[np.int64]:
        return reference[places.of(tree[is_branch], of_branches(_integers(node, f"nodes_{side}nodeids")))]

    mode = np.full(int(is_branch.sum()), -1)
    for name, value in _MODES.items():
        mode[modes[is_branch] == name] = value
    if (mode < 0).any():
        raise Refused(f"nodes_modes: unknown mode {modes[is_branch][mode < 0][0].decode(errors='replace')}")
    tracks = _integers(node, "nodes_missing_value_tracks_true")
    return _Branches(
        mode,
        of_branches(_integers(node, "nodes_featureids")),
        of_branches(_floats(node, "nodes_values")),
        of_branches(tracks) if len(tracks) else np.zeros_like(mode),
        child("true"),
        child("false"),
    )


def _rooted(b: _Branches, roots: NDArray[np.int64]) -> tuple[_Branches, NDArray[np.int64]]:
    """A tree that is a leaf alone becomes a node both of whose branches lead to it."""
    alone = roots < 0
    leaf, zeros = roots[alone], np.zeros(int(alone.sum()), np.int64)
    roots = np.where(alone, len(b) + np.cumsum(alone) - 1, roots)
    added = _Branches(zeros + LEQ, zeros, zeros.astype(np.float32), zeros, leaf, leaf)
    return _Branches(*(np.concatenate([getattr(b, f.name), getattr(added, f.name)]) for f in fields(b))), roots


def _with_sets(b: _Branches, roots: NDArray[np.int64]) -> tuple[_Branches, NDArray[np.int64], NDArray[np.float32]]:
    """Equalities of one feature, one behind the other, that lead to the same place become one node with a set: so converters
    write a set of categories, and a place that several nodes lead to is no tree. Also the sets, as `membership_values`.
    """
    times = np.bincount(np.concatenate([b.yes[b.yes >= 0], b.no[b.no >= 0], roots]), minlength=len(b))
    behind, known = np.maximum(b.no, 0), ~np.isnan(b.split)
    goes_on = (b.mode == EQ) & (b.no >= 0) & (times[behind] == 1) & known & known[behind]
    for values in (b.mode, b.feature, b.tracks, b.yes):
        goes_on &= values == values[behind]
    is_behind = np.zeros(len(b), bool)
    is_behind[behind[goes_on]] = True
    mode, no, members = b.mode.copy(), b.no.copy(), list[float]()
    for first in np.flatnonzero(goes_on & ~is_behind).tolist():
        last = first
        members.append(b.split[first])
        while goes_on[last]:
            last = b.no[last]
            members.append(b.split[last])
        members.append(np.nan)
        mode[first], no[first] = MEMBER, b.no[last]
    number = np.cumsum(~is_behind) - 1
    left = [values[~is_behind] for values in (mode, b.feature, b.split, b.tracks, b.yes, no)]
    left[4:] = [np.where(child < 0, child, number[np.maximum(child, 0)]) for child in left[4:]]
    return _Branches(*left), number[roots], np.array(members, np.float32)


class _Places:
    """Where the node of a tree with a number stands among all nodes."""

    def __init__(self, tree: NDArray[np.int64], number: NDArray[np.int64]) -> None:
        self._span = int(number.max(initial=0)) + 1
        if number.min(initial=0) < 0 or tree.min(initial=0) < 0:
            raise Refused("nodes_nodeids: a number is negative")
        keys = tree * self._span + number
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        if (self._keys[1:] == self._keys[:-1]).any():
            raise Refused("nodes_nodeids: a node of a tree is there twice")

    def of(self, tree: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(tree) != len(number):
            raise Refused(f"nodes are named by {len(tree)} trees and {len(number)} numbers")
        keys = tree * self._span + number
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if ((number < 0) | (number >= self._span) | (self._keys[found] != keys)).any():
            raise Refused("a node that is named is not there")
        return self._order[found]


def _word(node: Node, name: str, usual: bytes) -> str:
    value = node.attributes.get(name, usual)
    if not isinstance(value, bytes):
        raise Refused(f"{node.op_type}.{name}: expected a word, got {value!r}")
    return value.decode(errors="replace")


def _words(node: Node, name: str) -> list[bytes]:
    value = node.attributes.get(name, [])
    if not isinstance(value, list):
        raise Refused(f"{node.op_type}.{name}: expected words, got {value!r}")
    return value


def _integers(node: Node, name: str) -> NDArray[np.int64]:
    value = node.attributes.get(name, np.empty(0, np.int64))
    if not isinstance(value, np.ndarray) or value.dtype != np.int64:
        raise Refused(f"{node.op_type}.{name}: expected integers, got {value!r}")
    return value


def _floats(node: Node, name: str) -> NDArray[np.float32]:
    if f"{name}_as_tensor" in node.attributes:
        raise Refused(f"{node.op_type}.{name}_as_tensor: expected float32 {name}")
    value = node.attributes.get(name, np.empty(0, np.float32))
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        raise Refused(f"{node.op_type}.{name}: expected float32 numbers, got {value!r}")
    return value
