"""Random tree ensembles in ONNX with every mode of the operator, and rows that try them; tests and benches share them.

`Generated.expected` is a plain Python reading of the operator's text: the oracle of the tree kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(7)
ALL_MODES = (LEQ, LT, GTE, GT, EQ, NEQ, MEMBER)
_EDGES = [
    0.0, -0.0, np.inf, -np.inf, 1e300, -1e300, 1e-45, -1e-45, 1e-50, -1e-50, 3.4028234663852886e38, 1.0000000180025095e-35,
    16777217.0,
]  # fmt: skip
_SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 2.5, -1.0, 65535.0, 70000.0, 1e10], np.float32
)


@dataclass
class Arrays:
    """The operator's attributes as lists. Nodes and leaves are numbered as they are added."""

    features: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    true_leafs: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    false_leafs: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def leaf(self, value: float, target: int) -> int:
        self.weights.append(value)
        self.targets.append(target)
        return len(self.weights) - 1

    def node(self, feature: int, mode: int, split: float, tracks: int) -> int:
        """A node whose branches are leaf 0 until they are set."""
        self.features.append(feature)
        self.modes.append(mode)
        self.splits.append(split)
        self.tracks.append(tracks)
        self.true_ids.append(0)
        self.true_leafs.append(1)
        self.false_ids.append(0)
        self.false_leafs.append(1)
        return len(self.features) - 1


@dataclass(frozen=True)
class Shape:
    """What `generate` makes: trees of up to `n_leaves` leaves.

    splits: grid (shared by many nodes), edges (odd numbers) or normal (float64 between two float32).
    growth: random splits any leaf, chain always the newest, even the oldest.
    mixed_targets: the leaves of one tree add to several targets.
    single: all numbers are float32, and the operator's sums are.
    """

    n_trees: int = 5
    n_leaves: int = 20
    n_features: int = 6
    n_targets: int = 1
    modes: tuple[int, ...] = ALL_MODES
    splits: str = "grid"
    growth: str = "random"
    mixed_targets: bool = False
    average: bool = False
    single: bool = False
    members: tuple[float, ...] = (2.5, -1.0, 1e10)  # in some of the sets, beside small whole numbers


@dataclass
class Generated:
    """An ensemble as lists, its ONNX form, and what it must give."""

    arrays: Arrays
    shape: Shape
    members: dict[int, frozenset[float]] = field(default_factory=dict)  # by node

    def onnx(self, tail: Iterable[NodeProto] = (), constants: Iterable[TensorProto] = ()) -> bytes:
        """The model: float32 rows "x", cast to "x64" unless it is single, the sums "raw"; `tail` reads "raw" and writes "y"."""
        kind = TensorProto.FLOAT if self.shape.single else TensorProto.DOUBLE
        cast = [] if self.shape.single else [helper.make_node("Cast", ["x"], ["x64"], to=TensorProto.DOUBLE)]
        behind = list(tail)
        nodes = [*cast, self._ensemble(), *behind]
        outputs = [helper.make_tensor_value_info("raw", kind, [None, self.shape.n_targets])]
        outputs += [helper.make_tensor_value_info("y", kind, None)] if behind else []
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, self.shape.n_features])
        graph = helper.make_graph(nodes, "trees", [x], outputs, list(constants))
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 5)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())

    def _ensemble(self) -> NodeProto:
        a = self.arrays
        numbers = {"nodes_splits": a.splits, "leaf_weights": a.weights}
        numbers |= {"membership_values": a.members} if a.members else {}
        dtype = np.float32 if self.shape.single else np.float64
        return helper.make_node(
            "TreeEnsemble",
            ["x" if self.shape.single else "x64"],
            ["raw"],
            domain="ai.onnx.ml",
            n_targets=self.shape.n_targets,
            aggregate_function=0 if self.shape.average else 1,
            post_transform=0,
            tree_roots=a.roots,
            nodes_featureids=a.features,
            nodes_modes=numpy_helper.from_array(np.array(a.modes, np.uint8), "nodes_modes"),
            nodes_truenodeids=a.true_ids,
            nodes_trueleafs=a.true_leafs,
            nodes_falsenodeids=a.false_ids,
            nodes_falseleafs=a.false_leafs,
            nodes_missing_value_tracks_true=a.tracks,
            leaf_targetids=a.targets,
            **{name: numpy_helper.from_array(np.array(values, dtype), name) for name, values in numbers.items()},
        )

    def is_true(self, node: int, value: float) -> bool:
        """The operator's text: the comparison, or NaN where the node tracks it."""
        mode, split = self.arrays.modes[node], self.arrays.splits[node]
        if value != value and self.arrays.tracks[node]:  # noqa: PLR0124 - NaN
            return True
        if mode == MEMBER:
            return value in self.members[node]
        answers = {
            LEQ: value <= split,
            LT: value < split,
            GTE: value >= split,
            GT: value > split,
            EQ: value == split,
            NEQ: value != split,
        }
        return answers[mode]

    def expected(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sums (n, targets) of `x` (n, features), added tree by tree."""
        a = self.arrays
        out = np.zeros((len(x), self.shape.n_targets), np.float32 if self.shape.single else np.float64)
        for r, row in enumerate(x.astype(np.float64).tolist()):
            for root in a.roots:
                at, leaf = root, 0
                while not leaf:
                    yes = self.is_true(at, row[a.features[at]])
                    at, leaf = (a.true_ids[at], a.true_leafs[at]) if yes else (a.false_ids[at], a.false_leafs[at])
                out[r, a.targets[at]] += a.weights[at]
        return (out / len(a.roots) if self.shape.average else out).astype(np.float64)


def generate(seed: int, shape: Shape | None = None, **changes: Any) -> Generated:
    """An ensemble of that shape, or of the default one with `changes`; equal for equal arguments."""
    shape = replace(shape or Shape(), **changes)
    rng = np.random.default_rng(seed)
    made = Generated(Arrays(), shape)
    for number in range(shape.n_trees):
        _add_tree(made, rng, target=number % shape.n_targets)
    if shape.single:
        with np.errstate(over="ignore"):
            for name in ("splits", "weights", "members"):
                setattr(made.arrays, name, np.array(getattr(made.arrays, name), np.float32).tolist())
    return made


def _add_tree(made: Generated, rng: np.random.Generator, target: int) -> None:
    a, shape = made.arrays, made.shape

    def leaf() -> int:
        return a.leaf(float(rng.normal()), int(rng.integers(shape.n_targets)) if shape.mixed_targets else target)

    def node() -> int:
        mode = int(rng.choice(shape.modes))
        number = a.node(int(rng.integers(shape.n_features)), mode, _split(rng, shape.splits), int(rng.integers(2)))
        if mode == MEMBER:
            pool = [float(v) for v in rng.integers(0, 12, int(rng.integers(1, 9)))]
            pool += shape.members if rng.random() < 0.2 else ()
            made.members[number] = frozenset(pool)
            a.members += [*pool, np.nan]
        return number

    size = shape.n_leaves if rng.random() < 0.5 else int(rng.integers(1, shape.n_leaves + 1))
    children = _tree(rng, size, shape.growth)
    if not children:  # the operator's form of a single leaf: a node whose branches are the same leaf
        number = node()
        a.true_ids[number] = a.false_ids[number] = leaf()
        a.roots.append(number)
        return
    numbers = [node() for _ in children]
    a.roots.append(numbers[0])
    for number, ends in zip(numbers, children, strict=True):
        ids = [(numbers[end], 0) if end >= 0 else (leaf(), 1) for end in ends]
        (a.true_ids[number], a.true_leafs[number]), (a.false_ids[number], a.false_leafs[number]) = ids


def _tree(rng: np.random.Generator, size: int, growth: str) -> list[list[int]]:
    """Node -> its two children, each the number of a node, or -1 for a leaf."""
    children: list[list[int]] = []
    open_ends = [(-1, 0)]
    while len(children) < size - 1:
        parent, side = open_ends.pop({"random": int(rng.integers(len(open_ends))), "chain": -1, "even": 0}[growth])
        if parent >= 0:
            children[parent][side] = len(children)
        children.append([-1, -1])
        ends = [(len(children) - 1, 0), (len(children) - 1, 1)]
        open_ends += ends if rng.random() < 0.5 else ends[::-1]
    return children


def _split(rng: np.random.Generator, splits: str) -> float:
    if splits == "grid":
        return float(rng.integers(-4, 5)) / 2
    return float(rng.choice(_EDGES)) if splits == "edges" else float(rng.normal())


def rows_for(made: Generated, n_rows: int, seed: int) -> NDArray[np.float32]:
    """Rows on thresholds and members and one float32 beside them, with NaN, infinities, zeros of both signs, and others."""
    rng = np.random.default_rng(seed)
    width = made.shape.n_features
    x = rng.normal(size=(n_rows, width)).astype(np.float32)
    with np.errstate(over="ignore"):
        splits = np.array(made.arrays.splits, np.float64).astype(np.float32)
    members = np.array([m for values in made.members.values() for m in values] or [0.0], np.float32)
    features = np.array(made.arrays.features)
    for column in range(width):
        own = splits[features == column]
        on = rng.choice(own if len(own) else splits[:1], n_rows)
        step = rng.integers(-1, 2, n_rows)
        with np.errstate(over="ignore", under="ignore"):
            toward = np.where(step > 0, np.float32(np.inf), np.float32(-np.inf))
            beside = np.where(step == 0, on, np.nextafter(on, toward))
        kind = rng.integers(0, 5, n_rows)
        choices = [beside, rng.choice(_SPECIAL, n_rows), rng.choice(members, n_rows), np.full(n_rows, np.nan, np.float32)]
        x[:, column] = np.select([kind == i for i in range(4)], choices, x[:, column])
    return x
