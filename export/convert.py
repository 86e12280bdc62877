"""Booster to ONNX, node by node: exactly, or not at all.

The graph is a cast of the float32 input to float64, one `ai.onnx.ml` 5 TreeEnsemble with LightGBM's own float64
thresholds and leaves, and LightGBM's sigmoid. Nothing is rounded, so a row takes the path that it takes in LightGBM.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from engine.contract import METADATA_KEY, Contract
from export.booster import Ensemble, Tree, UnsupportedModel, categorical_features, read_booster

INPUT, OUTPUT = "features", "score"
_ML_OPSET, _OPSET, _IR = 5, 18, 9
_LEQ, _MEMBER = 0, 6  # nodes_modes: BRANCH_LEQ, BRANCH_MEMBER
_SUM = 1


def to_onnx(booster: Any, contract: Contract) -> onnx.ModelProto:
    """The Booster (lightgbm.Booster) as a model with float32 input (n, f) and float64 scores (n,), contract inside.

    Raises `UnsupportedModel`, by name, for what cannot be represented exactly, or when the contract describes another
    number of features than the Booster has.
    """
    ensemble = read_booster(booster)
    if len(ensemble.feature_names) != len(contract.features):
        raise UnsupportedModel(
            f"the Booster has {len(ensemble.feature_names)} features, the contract describes {len(contract.features)}",
        )
    model = _graph(ensemble)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    return model


def _graph(ensemble: Ensemble) -> onnx.ModelProto:
    width = len(ensemble.feature_names)
    categorical = categorical_features(ensemble)
    # Categorical splits look at a truncated copy behind the other columns: LightGBM takes 3.7 as category 3.
    place = {feature: width + at for at, feature in enumerate(categorical)}
    nodes, initializers = [], []
    wide = INPUT
    if categorical:
        initializers.append(helper.make_tensor("categorical", TensorProto.INT64, [len(categorical)], categorical))
        nodes += [
            helper.make_node("Gather", [INPUT, "categorical"], ["category"], axis=1),
            helper.make_node("Sign", ["category"], ["category_sign"]),
            helper.make_node("Abs", ["category"], ["category_size"]),
            helper.make_node("Floor", ["category_size"], ["category_floor"]),
            helper.make_node("Mul", ["category_sign", "category_floor"], ["category_code"]),
            helper.make_node("Concat", [INPUT, "category_code"], ["wide"], axis=1),
        ]
        wide = "wide"
    trees = _trees(ensemble, place)
    for name, value in (("minus_sigmoid", -ensemble.sigmoid), ("one", 1.0)):
        initializers.append(helper.make_tensor(name, TensorProto.DOUBLE, [], [value]))
    initializers.append(helper.make_tensor("flat", TensorProto.INT64, [1], [-1]))
    nodes += [
        helper.make_node("Cast", [wide], ["doubles"], to=TensorProto.DOUBLE),
        helper.make_node("TreeEnsemble", ["doubles"], ["margin"], domain="ai.onnx.ml", **trees),
        # LightGBM's ConvertOutput, operation by operation.
        helper.make_node("Mul", ["margin", "minus_sigmoid"], ["exponent"]),
        helper.make_node("Exp", ["exponent"], ["power"]),
        helper.make_node("Add", ["power", "one"], ["divisor"]),
        helper.make_node("Div", ["one", "divisor"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "lightgbm",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["n"])],
        initializers,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="saker", ir_version=_IR)
    onnx.checker.check_model(model)
    return model


def _trees(ensemble: Ensemble, place: dict[int, int]) -> dict[str, Any]:
    """The attributes of TreeEnsemble: all trees' nodes and leaves, one after another."""
    nodes: list[_Node] = []
    roots: list[int] = []
    weights: list[float] = []
    for tree in ensemble.trees:
        first_leaf = len(weights)
        roots.append(len(nodes))
        nodes += _nodes(tree, place, len(nodes), first_leaf)
        weights += tree.leaf.tolist()
    attributes = {
        "aggregate_function": _SUM,
        "n_targets": 1,
        "post_transform": 0,
        "tree_roots": roots,
        "nodes_featureids": [node.feature for node in nodes],
        "nodes_modes": _tensor(TensorProto.UINT8, [_LEQ if node.members is None else _MEMBER for node in nodes]),
        "nodes_splits": _tensor(TensorProto.DOUBLE, [node.threshold for node in nodes]),
        "nodes_missing_value_tracks_true": [int(node.missing_left) for node in nodes],
        "nodes_truenodeids": [node.left for node in nodes],
        "nodes_falsenodeids": [node.right for node in nodes],
        "nodes_trueleafs": [int(node.left_is_leaf) for node in nodes],
        "nodes_falseleafs": [int(node.right_is_leaf) for node in nodes],
        "leaf_targetids": [0] * len(weights),
        "leaf_weights": _tensor(TensorProto.DOUBLE, weights),
    }
    # One set after another, in the order of their nodes, each closed by a NaN.
    members = [value for node in nodes if node.members is not None for value in (*node.members, np.nan)]
    if members:
        attributes["membership_values"] = _tensor(TensorProto.DOUBLE, members)
    return attributes


class _Node(NamedTuple):
    """A node of TreeEnsemble; left is its true branch. Children are places among all nodes, or among all leaves."""

    feature: int
    threshold: float
    members: list[int] | None
    missing_left: bool
    left: int
    left_is_leaf: bool
    right: int
    right_is_leaf: bool


def _nodes(tree: Tree, place: dict[int, int], first_node: int, first_leaf: int) -> list[_Node]:
    if not len(tree.feature):  # TreeEnsemble has no tree without a node: both branches lead to the one leaf
        return [_Node(0, 0.0, None, True, first_leaf, True, first_leaf, True)]

    def child(at: int) -> tuple[int, bool]:
        return (first_leaf + ~at, True) if at < 0 else (first_node + at, False)

    nodes = []
    rows = zip(tree.feature.tolist(), tree.left.tolist(), tree.right.tolist(), strict=True)
    for node, (feature, left, right) in enumerate(rows):
        members = tree.members.get(node)
        nodes.append(
            _Node(
                feature if members is None else place[feature],
                float(tree.threshold[node]) if members is None else 0.0,
                members,
                bool(tree.missing_left[node]),
                *child(left),
                *child(right),
            ),
        )
    return nodes


def _tensor(kind: int, values: list[Any]) -> onnx.TensorProto:
    return helper.make_tensor("", kind, [len(values)], values)
