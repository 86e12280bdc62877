"""Booster -> ONNX, node by node. The graph:

    features f32 (n, f) -> columns f64 (n, c) -> TreeEnsemble -> raw f64 (n, k) -> objective -> score f64 (n,) or (n, k)

Thresholds, leaf values and the order of the trees are the Booster's own, in float64; node i and leaf j of a tree are
LightGBM's split i and leaf j. A model that this cannot say exactly is refused by name (export/errors.py). The function owns
all state that it makes; it reads the Booster and does not change it.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from saker.engine.contract import Contract
from saker.engine.onnx_trees import LEQ, LT, MEMBER
from saker.export.errors import UnsupportedModel
from saker.export.onnx_writer.columns import Columns, build_columns, plan_columns
from saker.export.onnx_writer.metadata import FORMAT_VERSION, ModelFacts, write_metadata
from saker.export.onnx_writer.objectives import Nodes, transform_of
from saker.export.readers.ensemble import MISSING_NONE, Ensemble, Tree
from saker.export.readers.open_source import open_source

# ai.onnx.ml 5 is the first with TreeEnsemble (float64, set membership). The others are the oldest that go with it, so that
# older runtimes take the file too.
OPSETS = {"": 21, "ai.onnx.ml": 5}
IR_VERSION = 10


def to_onnx(booster: Any, contract: Contract, *, iterations: int | None = None) -> ModelProto:
    """Export a trained model.

    booster: a `lightgbm.Booster` or a fitted estimator of lightgbm; or a model of xgboost or scikit-learn
        (see `saker.export.readers.xgboost_model` and `saker.export.readers.sklearn_model`).
    contract: names of the features, how a record becomes a row, and golden records; it is stored in the file, with the
        kind of the score. `saker.contract_for` makes one for a model that saker did not train.
    iterations: number of first iterations to use; default as in `Booster.predict`: the best iteration after early
        stopping, otherwise all.

    Input `features`: float32 (n, f), n dynamic, f as in training. Outputs: `score`, float64, (n,) or (n, k) for k > 1
    outputs, equal to `Booster.predict`; `raw`, float64 (n, k), equal to `Booster.predict(raw_score=True)`, which for a
    random forest is the sum of the trees. Metadata: `saker.export.onnx_writer.metadata`.

    Raises UnsupportedModel (linear trees, an unknown objective or file format, no trees, a contract for another number of
    features), BrokenModel, and ValueError for a number of iterations that the model does not have.
    """
    ensemble = open_source(booster, iterations).ensemble
    if len(contract.features) != ensemble.n_features:
        raise UnsupportedModel(
            "contract", f"the model has {ensemble.n_features} features, the contract describes {len(contract.features)}"
        )
    transform = transform_of(ensemble)
    graph = Nodes([], {})
    columns = plan_columns(ensemble)
    matrix = build_columns(graph, "features", columns, ensemble)
    trees, node_rows, leaf_rows = _tree_attributes(ensemble, columns)
    raw = graph.add("TreeEnsemble", matrix, output="raw", domain="ai.onnx.ml", **trees)
    margin = raw
    if ensemble.averaged:
        margin = graph.add("Div", raw, graph.constant("iterations", np.float64(ensemble.iterations)))
    score = transform.build(graph, margin, ensemble)
    if ensemble.n_outputs == 1:
        graph.add("Squeeze", score, graph.constant("output_axis", np.array([1], np.int64)), output="score")
    else:
        graph.add("Identity", score, output="score")

    k = ensemble.n_outputs
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "saker",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", ensemble.n_features])],
            [
                helper.make_tensor_value_info("score", TensorProto.DOUBLE, ["n"] if k == 1 else ["n", k]),
                helper.make_tensor_value_info("raw", TensorProto.DOUBLE, ["n", k]),
            ],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="saker",
    )
    facts = ModelFacts(
        format_version=FORMAT_VERSION,
        source=ensemble.source,
        objective=ensemble.objective,
        sigmoid=ensemble.sigmoid,
        averaged=ensemble.averaged,
        iterations=ensemble.iterations,
        n_trees=len(ensemble.trees),
    )
    write_metadata(model, replace(contract, score=transform.meaning), facts, node_rows, leaf_rows)
    checker.check_model(model, full_check=True)
    return model


def _tree_attributes(ensemble: Ensemble, columns: Columns) -> tuple[dict[str, Any], NDArray[np.int32], NDArray[np.int32]]:
    """The attributes of TreeEnsemble, and the training rows of its nodes and leaves."""
    trees = [_with_a_split(tree) for tree in ensemble.trees]
    first_node = np.cumsum([0] + [tree.n_splits for tree in trees])
    first_leaf = np.cumsum([0] + [tree.n_leaves for tree in trees])

    def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(parts)

    def children(side: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where the branch leads, counted over all trees, and whether that is a leaf."""
        child = joined([getattr(tree, side).astype(np.int64) for tree in trees])
        sizes = [tree.n_splits for tree in trees]
        is_leaf = child < 0
        return np.where(is_leaf, ~child + np.repeat(first_leaf[:-1], sizes), child + np.repeat(first_node[:-1], sizes)), is_leaf

    true_child, true_is_leaf = children("left")
    false_child, false_is_leaf = children("right")
    mode, split = joined([_modes(tree) for tree in trees]), joined([_splits(tree) for tree in trees])
    missing_goes_left = joined([_missing_goes_left(tree) for tree in trees])
    leaf_target = np.repeat(np.arange(len(trees)) % ensemble.n_outputs, [tree.n_leaves for tree in trees])
    attributes: dict[str, Any] = {
        "n_targets": ensemble.n_outputs,
        "aggregate_function": 1,  # SUM
        "post_transform": 0,  # NONE
        "tree_roots": first_node[:-1].tolist(),
        # A tree that had no split reads the first column, whatever that is: both its leaves are the same.
        "nodes_featureids": joined(
            [columns.of(tree) if tree.n_splits else np.zeros(1, np.int64) for tree in ensemble.trees]
        ).tolist(),
        "nodes_modes": numpy_helper.from_array(mode),
        "nodes_splits": numpy_helper.from_array(split),
        "nodes_truenodeids": true_child.tolist(),
        "nodes_trueleafs": true_is_leaf.astype(int).tolist(),
        "nodes_falsenodeids": false_child.tolist(),
        "nodes_falseleafs": false_is_leaf.astype(int).tolist(),
        "leaf_targetids": leaf_target.tolist(),
        "leaf_weights": numpy_helper.from_array(joined([tree.leaf_value for tree in trees])),
    }
    # Both are optional, and onnxruntime has a faster walk for a model that does not mind missing values.
    if missing_goes_left.any():
        attributes["nodes_missing_value_tracks_true"] = missing_goes_left.astype(int).tolist()
    if (mode == MEMBER).any():
        attributes["membership_values"] = numpy_helper.from_array(joined([_members(tree) for tree in trees]))
    node_rows = joined([tree.split_rows for tree in trees])
    leaf_rows = joined([tree.leaf_rows for tree in trees])
    return attributes, node_rows, leaf_rows


def _with_a_split(tree: Tree) -> Tree:
    """A tree of one leaf becomes a split with the same value on both sides.

    The operator has no other way to write it than a node whose branches lead to one leaf, and for that onnxruntime up to
    1.24 at least takes the weight at the *node's* number instead of the leaf's (1.32 does not).
    """
    if tree.n_splits:
        return tree
    one = np.ones(1, np.int32)
    return Tree(
        feature=0 * one,
        threshold=np.zeros(1),
        categorical=np.zeros(1, np.bool_),
        default_left=np.ones(1, np.bool_),
        missing=np.full(1, MISSING_NONE, np.int8),
        left=~(0 * one),
        right=~one,
        leaf_value=np.repeat(tree.leaf_value, 2),
        split_rows=tree.leaf_rows,
        leaf_rows=np.concatenate([tree.leaf_rows, 0 * tree.leaf_rows]),
    )


def _is_empty_set(tree: Tree) -> NDArray[np.bool_]:
    empty = np.zeros(tree.n_splits, np.bool_)
    for split, members in tree.categories.items():
        empty[split] = len(members) == 0
    return empty


def _modes(tree: Tree) -> NDArray[np.uint8]:
    # onnxruntime takes the largest member of a set without looking whether there is one: an empty set is "x < -inf".
    return np.where(tree.categorical, np.where(_is_empty_set(tree), LT, MEMBER), LEQ).astype(np.uint8)


def _splits(tree: Tree) -> NDArray[np.float64]:
    member = np.where(_is_empty_set(tree), -np.inf, 0.0)
    return np.where(tree.categorical, member, tree.threshold)


def _missing_goes_left(tree: Tree) -> NDArray[np.bool_]:
    """Where NaN goes: with missing type none LightGBM takes it for 0, with the others it takes the default direction.

    A category that is missing is in no set (`Tree::CategoricalDecision` returns the right child).
    """
    return ~tree.categorical & np.where(tree.missing == MISSING_NONE, tree.threshold >= 0, tree.default_left)


def _members(tree: Tree) -> NDArray[np.float64]:
    """The sets of the tree's categorical splits in the order of the splits, each closed by a NaN."""
    sets = [tree.categories[split] for split in sorted(tree.categories) if len(tree.categories[split])]
    return np.concatenate([np.zeros(0), *(np.append(members.astype(np.float64), np.nan) for members in sets)])
