"""TreeEnsembleClassifier and TreeEnsembleRegressor, which other converters write: onnxruntime's scores to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import skl2onnx
import sklearn.ensemble
import xgboost
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from saker.engine.kernels import Native
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.onnx_reader.legacy_ensembles import with_tree_ensemble
from saker.engine.kernels.onnx_reader.post_transform import tail_of
from saker.engine.kernels.tree_kernel import TreeKernel
from saker.engine.model.native_trees import NativeTrees, hard_rows
from saker.export.proof.onnxmltools_check import onnxmltools_model
from saker.export.selfcheck.model_zoo import KINDS, rows_like_training
from tests.support.random_ensembles import EQ, GT, GTE, LEQ, LT, NEQ, Arrays, Generated, generate, rows_for

Trained = Callable[[str], Any]
Ways = list[dict[str, Any]]
Rows = NDArray[np.float32]
NAMES = {LEQ: "BRANCH_LEQ", LT: "BRANCH_LT", GTE: "BRANCH_GTE", GT: "BRANCH_GT", EQ: "BRANCH_EQ", NEQ: "BRANCH_NEQ"}
_rng = np.random.default_rng(0)
X = _rng.normal(size=(600, 5)).astype(np.float32)
HOLES = np.where(_rng.random(X.shape) < 0.1, np.float32(np.nan), X)
TWO = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
THREE = TWO + (X[:, 3] > 1)


def by_xgboost(model: Any, label: NDArray[Any]) -> bytes:
    types = [("x", FloatTensorType([None, X.shape[1]]))]
    return bytes(convert_xgboost(model.fit(HOLES, label), initial_types=types, target_opset=15).SerializeToString())


def by_sklearn(model: Any, label: NDArray[Any]) -> bytes:
    model.fit(X, label)
    options = {"zipmap": False} if hasattr(model, "classes_") else None
    return bytes(skl2onnx.to_onnx(model, X[:1], options=options, target_opset=15).SerializeToString())


CONVERTED: dict[str, Callable[[], bytes]] = {
    "xgboost, two classes": lambda: by_xgboost(xgboost.XGBClassifier(n_estimators=30, max_depth=4), TWO),
    "xgboost, three classes": lambda: by_xgboost(xgboost.XGBClassifier(n_estimators=30, max_depth=4), THREE),
    "xgboost, a value": lambda: by_xgboost(xgboost.XGBRegressor(n_estimators=30, max_depth=4), X[:, 0]),
    "sklearn, boosted": lambda: by_sklearn(sklearn.ensemble.GradientBoostingClassifier(n_estimators=30), TWO),
    "sklearn, boosted value": lambda: by_sklearn(sklearn.ensemble.GradientBoostingRegressor(n_estimators=30), X[:, 0]),
    "sklearn, forest": lambda: by_sklearn(sklearn.ensemble.RandomForestClassifier(n_estimators=30, max_depth=6), TWO),
    "sklearn, forest of values": lambda: by_sklearn(sklearn.ensemble.RandomForestRegressor(30, max_depth=6), X[:, 0]),
}


def ask_of(data: bytes) -> tuple[Callable[[list[str], Rows], list[Any]], str, int]:
    """What onnxruntime makes of rows by one thread (several add the trees in another order); the last output and its width."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = session.get_outputs()[-1]
    return lambda names, x: session.run(names, {name: x}), output.name, output.shape[1]


def check(extension: Native, ways: Ways, data: bytes, rows: Rows) -> None:
    """Each column by each way, bit for bit; and `NativeTrees` takes the model."""
    ask, output, n_columns = ask_of(data)
    graph = with_tree_ensemble(read_graph(data))
    ensemble, columns = ensemble_of(graph)
    x = np.concatenate([rows, *(hard_rows(ensemble, columns, seed) for seed in range(3))])
    expected = ask([output], x)[0]
    sums = {str(way): TreeKernel(extension, ensemble, columns, **way).score(x) for way in ways}
    for column in [None, *range(n_columns)]:
        tail = tail_of(extension, graph, ensemble, output, column)
        for way, of_trees in sums.items():
            got = tail(of_trees)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, expected if column is None else expected[:, column], way)
    native = NativeTrees(extension, data, output, n_columns - 1, ask)
    np.testing.assert_array_equal(native.score(x), expected[:, -1])


@pytest.mark.parametrize("name", CONVERTED)
def test_what_converters_write(extension: Native, ways: Ways, name: str) -> None:
    check(extension, ways, CONVERTED[name](), HOLES)


#: Kinds of models that onnxmltools does not convert, and those whose files go to onnxruntime.
NOT_CONVERTED = {
    "cross_entropy", "cross_entropy_lambda", "regression_alias", "regression_fair", "regression_mape", "custom_objective",
    "custom_objective_two_outputs", "early_stopping",
}  # fmt: skip
NOT_TAKEN = {"regression_poisson", "regression_gamma", "regression_tweedie", "forest_poisson"}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in NOT_CONVERTED | NOT_TAKEN])
def test_what_onnxmltools_writes(trained: Trained, extension: Native, ways: Ways, name: str) -> None:
    rows = rows_like_training(name, 7)
    check(extension, ways, onnxmltools_model(trained(name), rows.shape[1]).SerializeToString(), rows)


@pytest.mark.parametrize("name", sorted(NOT_TAKEN))
def test_what_onnxruntime_goes_on_scoring(trained: Trained, extension: Native, name: str) -> None:
    data = onnxmltools_model(trained(name), rows_like_training(name, 7).shape[1]).SerializeToString()
    ask, output, n_columns = ask_of(data)
    with pytest.raises(Refused, match="Exp behind sums of float32 is onnxruntime's own"):
        NativeTrees(extension, data, output, n_columns - 1, ask)


def test_two_classes_are_one_call(trained: Trained, extension: Native) -> None:
    """So that a worker answers a few records natively, without Python in between."""
    data = onnxmltools_model(trained("binary"), X.shape[1]).SerializeToString()
    ask, output, _ = ask_of(data)
    for column in (0, 1):
        native = NativeTrees(extension, data, output, column, ask)
        assert native.plan_and_program is not None
        plan, program = native.plan_and_program
        sums = np.empty((len(X), 1))
        plan.score(HOLES, sums)
        scores = np.empty_like(sums)
        program.run(sums, scores)
        np.testing.assert_array_equal(scores[:, 0], native.score(HOLES))


def attributes_of(made: Generated, kind: str) -> dict[str, Any]:
    """The operator's attributes; kind: class or target. A node whose branches are the same leaf is that leaf."""
    a: Arrays = made.arrays
    nodes: list[dict[str, Any]] = []
    leaves: list[tuple[int, int, int, float]] = []
    for tree, root in enumerate(a.roots):
        first = len(nodes)

        def add(at: int, leaf: int, tree: int = tree, first: int = first) -> int:
            number = len(nodes) - first
            alone = not leaf and a.true_ids[at] == a.false_ids[at] and a.true_leafs[at]
            if leaf or alone:
                end = at if leaf else a.true_ids[at]
                leaves.append((tree, number, a.targets[end], a.weights[end]))
                nodes.append({"treeids": tree, "nodeids": number, "featureids": 0, "modes": "LEAF", "values": 0.0,
                              "truenodeids": 0, "falsenodeids": 0, "missing_value_tracks_true": 0})  # fmt: skip
                return number
            node = {"treeids": tree, "nodeids": number, "featureids": a.features[at], "modes": NAMES[a.modes[at]],
                    "values": a.splits[at], "missing_value_tracks_true": a.tracks[at]}  # fmt: skip
            nodes.append(node)
            node["truenodeids"] = add(a.true_ids[at], a.true_leafs[at])
            node["falsenodeids"] = add(a.false_ids[at], a.false_leafs[at])
            return number

        add(root, 0)
    trees, numbers, targets, weights = zip(*leaves, strict=True)
    of_leaves = {"treeids": trees, "nodeids": numbers, "ids": targets, "weights": weights}
    return {f"nodes_{name}": [node[name] for node in nodes] for name in nodes[0]} | {
        f"{kind}_{name}": list(values) for name, values in of_leaves.items()
    }


def model(operator: str, attributes: dict[str, Any], n_features: int, n_columns: int) -> bytes:
    outputs = ["label", "y"] if operator.endswith("Classifier") else ["y"]
    node = helper.make_node(operator, ["x"], outputs, domain="ai.onnx.ml", **attributes)
    values = [helper.make_tensor_value_info("label", TensorProto.INT64, [None])] * (len(outputs) - 1)
    values.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n_columns]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, n_features])
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "trees", [x], values)
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def regressor(made: Generated, **changes: Any) -> bytes:
    n = made.shape.n_targets
    return model("TreeEnsembleRegressor", attributes_of(made, "target") | {"n_targets": n} | changes, made.shape.n_features, n)


def classifier(made: Generated, n_classes: int, **changes: Any) -> bytes:
    labels = {"classlabels_int64s": list(range(n_classes))}
    return model("TreeEnsembleClassifier", attributes_of(made, "class") | labels | changes, made.shape.n_features, n_classes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("n_targets", "changes"),
    [
        (1, {}),
        (1, {"base_values": [0.3], "aggregate_function": "AVERAGE"}),
        (3, {"post_transform": "SOFTMAX"}),
        (3, {"post_transform": "LOGISTIC", "base_values": [0.1, -0.2, 0.7]}),
        (11, {"aggregate_function": "AVERAGE", "post_transform": "SOFTMAX"}),
    ],
)
def test_any_regressor(extension: Native, ways: Ways, seed: int, n_targets: int, changes: dict[str, Any]) -> None:
    mixed = seed % 2 == 1 and "base_values" not in changes
    made = generate(seed, n_trees=13, n_targets=n_targets, modes=tuple(NAMES), single=True, mixed_targets=mixed)
    check(extension, ways, regressor(made, **changes), rows_for(made, 300, seed))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes", [{}, {"post_transform": "LOGISTIC"}, {"post_transform": "SOFTMAX", "base_values": [0.5, 0, 2]}]
)
def test_any_classifier(extension: Native, ways: Ways, seed: int, changes: dict[str, Any]) -> None:
    made = generate(seed, n_trees=13, n_targets=3, modes=tuple(NAMES), single=True, mixed_targets=True)
    check(extension, ways, classifier(made, 3, **changes), rows_for(made, 300, seed))
    one = generate(seed, n_trees=13, modes=tuple(NAMES), single=True)
    base = {"base_values": [0.25]} if "base_values" in changes else {}
    two = {"post_transform": "LOGISTIC"} | base
    check(extension, ways, classifier(one, 2, **two), rows_for(one, 300, seed))
    one.arrays.weights = np.abs(np.array(one.arrays.weights, np.float32) / 13).tolist()
    for positive in (base, two):
        check(extension, ways, classifier(one, 2, **positive), rows_for(one, 300, seed))
    both = generate(seed, n_trees=13, n_targets=2, modes=tuple(NAMES), single=True)
    transform = {"post_transform": changes.get("post_transform", "NONE")}
    check(extension, ways, classifier(both, 2, **transform), rows_for(both, 300, seed))


def test_a_target_that_may_get_no_number_and_has_a_base_value_is_refused() -> None:
    made = generate(1, n_targets=3, modes=(LEQ,), single=True, mixed_targets=True)
    with pytest.raises(Refused, match="expected a tree of each target alone"):
        with_tree_ensemble(read_graph(regressor(made, base_values=[0.1, 0.2, 0.3])))


def test_trees_that_are_a_leaf_alone(extension: Native, ways: Ways) -> None:
    made = generate(3, n_trees=6, n_leaves=1, single=True)
    check(extension, ways, regressor(made), rows_for(made, 50, 1))


def changed(made: Generated, name: str, place: int, value: Any) -> dict[str, Any]:
    values = attributes_of(made, "target")[name]
    values[place] = value
    return {name: values}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda m: regressor(m, aggregate_function="MIN"), "expected SUM or AVERAGE, got MIN"),
        (lambda m: regressor(m, post_transform="PROBIT"), "post_transform PROBIT of one target"),
        (lambda m: regressor(m, post_transform="LOGISTIC"), "post_transform LOGISTIC of one target"),
        (lambda m: regressor(m, base_values=[1.0, 2.0]), "base_values: expected 1, got 2"),
        (lambda m: regressor(m, **changed(m, "nodes_modes", 0, "BRANCH_MEMBER")), "unknown mode BRANCH_MEMBER"),
        (lambda m: regressor(m, **changed(m, "nodes_truenodeids", 0, 10**6)), "a node that is named is not there"),
        (lambda m: regressor(m, **changed(m, "nodes_nodeids", 1, 0)), "a node of a tree is there twice"),
        (lambda m: regressor(m, **changed(m, "nodes_nodeids", 0, -1)), "negative"),
        (lambda m: regressor(m, **changed(m, "nodes_treeids", 1, 3)), "twice|not there|side by side"),
        (lambda m: regressor(m, **changed(m, "target_nodeids", 0, 0)), "no number or with several|twice"),
        (lambda m: regressor(m, nodes_featureids=[0]), "an attribute of 1 values"),
        (lambda m: regressor(m, nodes_modes=["LEAF"]), r"nodes_treeids, nodes_nodeids, nodes_modes: (\d+), \1, 1 of them"),
        (lambda m: regressor(m, nodes_values=[0.0]), "an attribute of 1 values"),
        (lambda m: regressor(m, target_weights=[0.0]), "1 target_weights"),
        (lambda m: regressor(m, target_ids=[0.5]), "target_ids: expected integers"),
        (lambda m: regressor(m, n_targets=1.0), "n_targets: expected a number, got 1.0"),
        (lambda m: regressor(m, post_transform=3), "post_transform: expected a word, got 3"),
        (lambda m: regressor(m, nodes_modes=[1]), "nodes_modes: expected words"),
        (lambda m: classifier(m, 2), "post_transform NONE of two classes with one sum"),
        (lambda m: classifier(m, 1), "expected two classes or more, got 1"),
        (lambda m: classifier(m, 2, class_ids=[1] * len(attributes_of(m, "class")["class_ids"])), "a tree of each class alone"),
        (
            lambda m: classifier(
                m, 2, class_ids=[1] + [0] * (len(attributes_of(m, "class")["class_ids"]) - 1), base_values=[0.5]
            ),
            "base_values of two classes with a sum each",
        ),
        (lambda m: classifier(m, 3, post_transform="PROBIT"), "expected NONE, LOGISTIC or SOFTMAX, got PROBIT"),
    ],
)
def test_what_is_not_known_is_refused_by_name(make: Callable[[Generated], bytes], text: str) -> None:
    with pytest.raises(Refused, match=text):
        with_tree_ensemble(read_graph(make(generate(1, n_trees=4, modes=(LEQ,), single=True))))


def test_what_stands_in_front_of_the_trees_is_refused() -> None:
    made = generate(1, modes=(LEQ,), single=True)
    data = regressor(made).replace(b"\n\x01x\x12\x01y", b"\n\x01z\x12\x01y")
    with pytest.raises(Refused, match="expected the trees to read one float32 input"):
        ensemble_of(with_tree_ensemble(read_graph(data)))


def test_flipped_bytes_give_another_model_or_a_refusal(extension: Native, trained: Trained) -> None:
    data, rng = onnxmltools_model(trained("multiclass"), X.shape[1]).SerializeToString(), np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        noisy = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            noisy[at] = rng.integers(256)
        try:
            graph = with_tree_ensemble(read_graph(bytes(noisy)))
            ensemble, columns = ensemble_of(graph)
            TreeKernel(extension, ensemble, columns).score(HOLES)
            tail_of(extension, graph, ensemble, "probabilities", 0)
        except Refused:
            refused += 1
    assert refused > 50


def test_a_set_of_categories_is_one_node_again(trained: Trained, extension: Native, ways: Ways) -> None:
    """Also of odd numbers, and where missing ones belong to it."""
    rows = rows_like_training("category_hundreds", 7)
    proto = onnxmltools_model(trained("category_hundreds"), rows.shape[1])
    attributes = {attribute.name: attribute for attribute in proto.graph.node[0].attribute}
    nodes = list(zip(attributes["nodes_treeids"].ints, attributes["nodes_truenodeids"].ints, strict=True))
    rng = np.random.default_rng(0)
    attributes["nodes_values"].floats[:] = np.array(attributes["nodes_values"].floats) + rng.choice([0, 0.5], len(nodes))
    attributes["nodes_missing_value_tracks_true"].ints[:] = [(tree + true) % 2 for tree, true in nodes]
    ensemble, _ = ensemble_of(with_tree_ensemble(read_graph(proto.SerializeToString())))
    equal = sum(mode == b"BRANCH_EQ" for mode in attributes["nodes_modes"].strings)
    assert len(ensemble.feature) < equal / 10
    assert {one.feature for one in ensemble.sets} == {4}
    rows[:, 4] += rng.choice([0, 0.5, np.nan], len(rows)).astype(np.float32)
    check(extension, ways, proto.SerializeToString(), rows)

    attributes["nodes_values"].floats[0] = np.nan
    with pytest.raises(Refused, match=r"a threshold is NaN|a node is reached twice"):
        NativeTrees(extension, proto.SerializeToString(), "probabilities", 1, lambda _names, _x: [])
