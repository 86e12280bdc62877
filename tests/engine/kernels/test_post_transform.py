"""The tail gives what onnxruntime gives for the whole graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node

from saker.engine.kernels import Native
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.onnx_reader.post_transform import Tail, tail_of
from tests.support.random_ensembles import LEQ, generate, rows_for

TAILS: dict[str, list[NodeProto]] = {
    "identity": [make_node("Identity", ["raw"], ["y"])],
    "base": [make_node("Add", ["raw", "base"], ["y"])],
    "sigmoid": [make_node("Add", ["raw", "base"], ["b"]), make_node("Sigmoid", ["b"], ["y"])],
    "scaled sigmoid": [make_node("Mul", ["raw", "base"], ["b"]), make_node("Sigmoid", ["b"], ["y"])],
    "softmax": [make_node("Softmax", ["raw"], ["y"], axis=-1)],
    "exp": [make_node("Exp", ["raw"], ["y"])],
    "both classes": [
        make_node("Sigmoid", ["raw"], ["p"]),
        make_node("Sub", ["one", "p"], ["q"]),
        make_node("Concat", ["q", "p"], ["y"], axis=1),
    ],
    "float32": [
        make_node("Sigmoid", ["raw"], ["p"]),
        make_node("Cast", ["p"], ["q"], to=TensorProto.FLOAT),
        make_node("Cast", ["q"], ["y"], to=TensorProto.DOUBLE),
    ],
}
CONSTANTS = [numpy_helper.from_array(np.array([-1.5]), "base"), numpy_helper.from_array(np.array([1.0]), "one")]


def model(nodes: list[NodeProto], n_targets: int) -> tuple[bytes, NDArray[np.float32]]:
    made = generate(1, n_trees=9, n_features=4, n_targets=n_targets, modes=(LEQ,))
    return made.onnx(nodes, CONSTANTS), rows_for(made, 200, 2)


def tail(extension: Native, data: bytes, column: int | None = None) -> Tail:
    graph = read_graph(data)
    return tail_of(extension, graph, ensemble_of(graph)[0], "y", column)


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_tail_is_onnxruntimes(extension: Native, kernel_of: Any, name: str, n_targets: int) -> None:
    data, x = model(TAILS[name], n_targets)
    got = tail(extension, data)(kernel_of(data).score(x))
    expected = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=2e-7 if name == "float32" else 1e-12, atol=1e-14, strict=True)


def test_an_unknown_operator_is_refused(extension: Native) -> None:
    data, _ = model([make_node("Erf", ["raw"], ["y"])], 1)
    with pytest.raises(Refused, match="Erf"):
        tail(extension, data)


def test_a_tail_that_reads_the_input_is_refused(extension: Native) -> None:
    data, _ = model([make_node("Add", ["raw", "x64"], ["y"])], 1)
    with pytest.raises(Refused, match="something else"):
        tail(extension, data)


def test_sums_far_out_stay_finite(extension: Native) -> None:
    data, _ = model(TAILS["both classes"], 1)
    both = tail(extension, data)
    with np.errstate(all="raise"):
        y = both(np.array([[-800.0], [800.0], [0.0]]))
    assert y.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]


def test_one_column_of_it_is_what_it_is_in_the_whole(extension: Native, kernel_of: Any) -> None:
    for name, n_targets in (("both classes", 1), ("both classes", 3), ("softmax", 3)):
        data, x = model(TAILS[name], n_targets)
        sums = kernel_of(data).score(x)
        whole = tail(extension, data)(sums)
        for column in range(whole.shape[1]):
            of_column = tail(extension, data, column)
            np.testing.assert_array_equal(of_column(sums), whole[:, column])
            assert (of_column.program is not None) == (n_targets == 1)
