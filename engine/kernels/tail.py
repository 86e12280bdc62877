"""What follows the ensemble in the graph: its raw sums to the score. Built once for each model, then a pure function.

    Graph --tail_of--> Tail(raw float64 (n, targets)) -> the graph's output of that name

It follows the graph node by node, so that what an objective means stands in the file alone. The operators that gradient
boosting needs are a line of numpy each; a graph with any other is `Refused`, and onnxruntime serves the whole of it, since a
session of its own for the rest would cost a single row what the kernel saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.errors import Refused
from engine.kernels.graph import Graph, Node

_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}


def _softmax(x: NDArray[Any], axis: int) -> NDArray[Any]:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


_PLAIN: dict[str, Callable[..., Any]] = {
    "Identity": lambda x: x,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Abs": np.abs,
    "Sign": np.sign,
    "Less": np.less,
    "Equal": np.equal,
    "Where": np.where,
    "Reciprocal": lambda x: 1 / x,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def _operation(node: Node) -> Callable[..., Any]:
    """The node as a function of its inputs."""
    attributes = node.attributes
    if node.domain in ("", "ai.onnx"):
        if node.op_type in _PLAIN:
            return _PLAIN[node.op_type]
        if node.op_type == "Softmax":
            axis = attributes.get("axis", -1)
            return lambda x: _softmax(x, axis)
        if node.op_type == "Concat":
            axis = attributes["axis"]
            return lambda *parts: np.concatenate(parts, axis=axis)
        if node.op_type == "Reshape" and not attributes.get("allowzero", 0):
            return lambda x, shape: x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])
        if node.op_type == "Squeeze":
            return lambda x, axes: x.squeeze(tuple(axes.tolist()))
        if node.op_type == "Cast" and attributes.get("to") in _DTYPES:
            dtype = _DTYPES[attributes["to"]]
            return lambda x: x.astype(dtype)
    raise Refused(f"{node.domain or 'ai.onnx'} {node.op_type} behind the trees is not an operator that is known here")


@dataclass(frozen=True)
class Tail:
    """Call it with the kernel's sums. `steps` are the graph's nodes between them and the output, in order."""

    raw: str
    output: str
    constants: dict[str, NDArray[Any]]
    steps: tuple[tuple[Callable[..., Any], tuple[str, ...], str], ...]

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[Any]:
        """float64 (n, targets) -> the output, in the graph's own shape and dtype."""
        values = dict(self.constants)
        values[self.raw] = raw
        with np.errstate(all="ignore"):  # infinities and NaN are values here, as they are in the graph
            for operation, inputs, output in self.steps:
                values[output] = operation(*(values[name] for name in inputs))
        return values[self.output]


def tail_of(graph: Graph, raw: str, output: str) -> Tail:
    """The tail from the tensor `raw` to `output`. Raises `Refused` if a node of it is not known, or reads anything else."""
    needed, nodes = {output}, []
    for node in reversed(graph.nodes):
        if node.op_type != "TreeEnsemble" and needed.intersection(node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    known = {raw, *graph.initializers}
    steps = []
    for node in reversed(nodes):
        if len(node.outputs) != 1 or not known.issuperset(node.inputs):
            raise Refused(f"{node.op_type} behind the trees reads something else than their sums")
        steps.append((_operation(node), node.inputs, node.outputs[0]))
        known.add(node.outputs[0])
    if output not in known:
        raise Refused(f"the output {output} does not come from the trees")
    constants = {name: graph.initializers[name] for _, inputs, _ in steps for name in inputs if name in graph.initializers}
    return Tail(raw, output, constants, tuple(steps))
