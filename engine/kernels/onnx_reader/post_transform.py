"""The nodes after the ensemble: from raw sums to the score. Built once per model, then a pure function.

    Graph --tail_of--> Tail(sums float64 (n, targets)) -> the graph's output of that name, or one column of it

It follows the graph node by node, so the meaning of an objective is in the file alone: elementwise nodes that follow each
other are one call of native/trees/elementwise_program.c, the few others a line of numpy. A graph with any other operator is
`Refused`, and onnxruntime serves all of it, since a separate session for the rest would cost a single row what the kernel
saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels import Native
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.ensemble import Ensemble
from saker.engine.kernels.onnx_reader.graph import Graph, Node
from saker.engine.kernels.onnx_reader.legacy_ensembles import DOMAIN

if TYPE_CHECKING:
    from saker.engine.kernels import _native

Array = NDArray[Any]
Step = Callable[[dict[str, Array]], None]

#: By the numbers that native/trees/elementwise_program.c gives them (enum operation).
ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Sqrt", "Abs", "Sign", "Less", "Equal", "Where", "Reciprocal", "Sigmoid",
    "Identity",
)  # fmt: skip
_CONDITIONS = ("Less", "Equal")
#: onnxruntime's own of float32 are others than the C library's, in their last bit; within its tree operators it takes those.
_NOT_SINGLE = ("Exp", "Log", "Sigmoid", "Softmax", "Reciprocal")
_DOMAINS = ("", "ai.onnx", DOMAIN)
_OPERANDS = 3
_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}


@dataclass(frozen=True)
class Tail:
    """Call it with the kernel's sums. `steps` are the graph's nodes between them and the output, in order."""

    raw: str
    dtype: np.dtype[Any]  # of the sums in the graph
    output: str
    column: int | None
    steps: tuple[Step, ...]
    #: The native program, where that alone makes a score of a sum: of one target, and what follows it only changes the shape.
    program: _native.Program | None

    def __call__(self, raw: NDArray[np.float64]) -> Array:
        """float64 (n, targets) -> the output in the graph's own shape and dtype, or the column of it (n,)."""
        values: dict[str, Array] = {self.raw: raw.astype(self.dtype, copy=False)}
        for step in self.steps:
            step(values)
        made = values[self.output]
        return made if self.column is None else made[:, self.column]


def tail_of(native: Native, graph: Graph, ensemble: Ensemble, output: str, column: int | None = None) -> Tail:
    """The tail from the sums to `output`, or to one column of it. Raises `Refused` if a node of it is not known, or reads
    anything else.
    """
    raw, constants = ensemble.output, graph.initializers
    nodes, column = _of_column(graph, ensemble, _behind(graph, raw, output), output, column)
    dtype = np.dtype(np.float32 if ensemble.single else np.float64)
    types: dict[str, np.dtype[Any]] = {name: array.dtype for name, array in constants.items()} | {raw: dtype}
    steps: list[Step] = []
    done = 0
    for node in nodes:
        if ensemble.single and node.op_type in _NOT_SINGLE and node.domain != DOMAIN:
            raise Refused(f"{node.op_type} behind sums of float32 is onnxruntime's own")
    for elementwise, run in groupby(nodes, _is_elementwise):
        group = list(run)
        done += len(group)
        if elementwise:
            later = {output, *(name for node in nodes[done:] for name in node.inputs)}
            steps.append(_Elementwise(native, group, constants, types, later))
        else:
            for node in group:
                step = _Structural(node, constants)
                types[node.outputs[0]] = step.dtype or types[node.inputs[0]]
                steps.append(step)
    return Tail(raw, dtype, output, column, tuple(steps), _program(raw, steps))


def _program(raw: str, steps: list[Step]) -> _native.Program | None:
    match steps:
        case [_Elementwise(inputs=[source], outputs=[_], program=program), *others] if source == raw and all(
            isinstance(step, _Structural) and step.reshapes for step in others
        ):
            return program
    return None


def _behind(graph: Graph, raw: str, output: str) -> list[Node]:
    """The nodes from `raw` to `output`, in order."""
    needed, nodes = {output}, []
    for node in reversed(graph.nodes):
        if node.op_type != "TreeEnsemble" and needed.intersection(node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    nodes.reverse()
    known = {raw, *graph.initializers}
    for node in nodes:
        if len(node.outputs) != 1 or not known.issuperset(node.inputs):
            raise Refused(f"{node.op_type} behind the trees reads something else than their sums")
        known.add(node.outputs[0])
    if output not in known:
        raise Refused(f"the output {output} does not come from the trees")
    return nodes


def _of_column(
    graph: Graph, ensemble: Ensemble, nodes: list[Node], output: str, column: int | None
) -> tuple[list[Node], int | None]:
    """What makes only that column, and where it is then: where two classes are put together of one sum, half of the nodes."""
    together = [node for node in nodes if node.op_type == "Concat" and node.attributes.get("axis") == 1]
    constants = graph.initializers
    numbers = all(constants[name].size == 1 for node in nodes for name in node.inputs if name in constants)
    of_columns = ensemble.n_targets == 1 and all(node in together or _is_elementwise(node) for node in nodes)
    if column is None or len(together) != 1 or not numbers or not of_columns or column >= len(together[0].inputs):
        return nodes, column
    (whole,) = together
    part = Node("Identity", DOMAIN, (whole.inputs[column],), whole.outputs, {})
    return _behind(replace(graph, nodes=tuple(part if node is whole else node for node in nodes)), ensemble.output, output), 0


def _is_elementwise(node: Node) -> bool:
    return node.domain in _DOMAINS and node.op_type in ELEMENTWISE


class _Elementwise:
    """Nodes that work value by value, all in float64 or all in float32, as one native program."""

    def __init__(
        self,
        native: Native,
        nodes: list[Node],
        constants: Mapping[str, Array],
        types: dict[str, np.dtype[Any]],
        later: set[str],
    ) -> None:
        """types: of each known tensor, by name; extended here. later: the tensors that are read afterwards."""
        made = dict.fromkeys(node.outputs[0] for node in nodes)
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name not in made)
        fixed = [name for name in read if name in constants and constants[name].size == 1 and constants[name].ndim <= 1]
        self.inputs = [name for name in read if name not in fixed]
        self._shaped = {name: constants[name] for name in self.inputs if name in constants}
        register = {name: number for number, name in enumerate([*self.inputs, *fixed])}
        instructions = []
        self._dtype = np.dtype(np.float32 if types[nodes[0].inputs[-1]] == np.float32 else np.float64)
        for node in nodes:
            for place, name in enumerate(node.inputs):
                expected = np.bool_ if node.op_type == "Where" and place == 0 else self._dtype
                if types[name] != expected or (expected is np.bool_ and name not in made):
                    raise Refused(f"{node.op_type} behind the trees reads {types[name]}, expected {self._dtype}")
            operands = [register[name] for name in node.inputs]
            operands += [0] * (_OPERANDS - len(operands))
            instructions.append([ELEMENTWISE.index(node.op_type), *operands])
            register[node.outputs[0]] = len(register)
            types[node.outputs[0]] = np.dtype(np.bool_) if node.op_type in _CONDITIONS else self._dtype
        self.outputs = [name for name in made if name in later]
        if any(types[name] != self._dtype for name in self.outputs):
            raise Refused("a condition behind the trees is read by more than a Where")
        try:
            self.program = native.Program(
                instructions=np.array(instructions, np.int32),
                constants=np.array([constants[name].item() for name in fixed], np.float64),
                outputs=np.array([register[name] for name in self.outputs], np.int32),
                n_inputs=len(self.inputs),
                single=self._dtype == np.float32,
            )
        except ValueError as error:
            raise Refused(str(error)) from error

    def __call__(self, values: dict[str, Array]) -> None:
        inputs = [values[name] if name in values else self._shaped[name] for name in self.inputs]
        if len(inputs) > 1:
            inputs = list(np.broadcast_arrays(*inputs))
        inputs = [np.ascontiguousarray(array, np.float64) for array in inputs]
        outputs = [np.empty(inputs[0].shape) for _ in self.outputs]
        self.program.run(*inputs, *outputs)
        values |= {name: made.astype(self._dtype, copy=False) for name, made in zip(self.outputs, outputs, strict=True)}


class _Structural:
    """A node that numpy does. `dtype` is its output's, None for that of its first input. `reshapes`: and does nothing else."""

    def __init__(self, node: Node, constants: Mapping[str, Array]) -> None:
        self.dtype: Any = np.dtype(_DTYPES[node.attributes["to"]]) if node.attributes.get("to") in _DTYPES else None
        self.reshapes = node.op_type in ("Reshape", "Squeeze")
        self._output = node.outputs[0]
        self._inputs, self._apply = _operation(node, constants)

    def __call__(self, values: dict[str, Array]) -> None:
        values[self._output] = self._apply(*(values[name] for name in self._inputs))


def _operation(node: Node, constants: Mapping[str, Array]) -> tuple[tuple[str, ...], Callable[..., Array]]:
    """The inputs of the node, and its outputs."""
    attributes, (first, *others) = node.attributes, node.inputs
    if node.domain in _DOMAINS:
        if node.op_type == "Softmax":
            axis = attributes.get("axis", -1)
            return (first,), lambda x: _softmax(x, axis)
        if node.op_type in _REDUCTIONS and np.array_equal(attributes.get("axes", ()), [1]) and attributes.get("keepdims", 1):
            return (first,), _REDUCTIONS[node.op_type]
        if node.op_type == "Concat" and constants.keys().isdisjoint(node.inputs):
            axis = attributes["axis"]
            return node.inputs, lambda *parts: np.concatenate(parts, axis=axis)
        if node.op_type == "Reshape" and others[0] in constants and not attributes.get("allowzero", 0):
            sizes = constants[others[0]].tolist()
            return (first,), lambda x: x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])
        if node.op_type == "Squeeze" and len(others) == 1 and others[0] in constants:
            axes = tuple(constants[others[0]].tolist())
            return (first,), lambda x: x.squeeze(axes)
        if node.op_type == "Cast" and attributes.get("to") in _DTYPES:
            dtype = _DTYPES[attributes["to"]]
            return (first,), lambda x: x.astype(dtype)
    raise Refused(f"{node.domain or 'ai.onnx'} {node.op_type} behind the trees is not an operator that is known here")


#: Over each row. Sums are added from left to right, as onnxruntime does where a tree operator makes them.
_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceMax": lambda x: x.max(axis=1, keepdims=True),
    "ReduceSum": lambda x: np.add.accumulate(x, axis=1)[:, -1:],
}


def _softmax(x: Array, axis: int) -> Array:
    with np.errstate(all="ignore"):  # infinities and NaN are values here, as they are in the graph
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return np.asarray(e / e.sum(axis=axis, keepdims=True))
