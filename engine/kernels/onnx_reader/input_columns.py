"""The first nodes of the graph: which columns the trees read, and how the float32 input becomes them.

`saker export` writes up to three of them, for the reasons in export/onnx_writer/columns.py, and this module reads them:

    input --[Concat(input, Gather(input, extra))]--> --[Where(Abs(.) <= limit, NaN, .)]--> --[Where(mask, truncated, .)]--> Cast
    input --Where(. == value, NaN, .)--> Cast

Anything else before the trees is `Refused`. The result is not taken on trust: every model is compared with onnxruntime when
it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.graph import Graph, Node
from saker.engine.onnx_trees import BAND, CATEGORY, PLAIN

_FLOAT, _DOUBLE = 1, 11  # ONNX element types


@dataclass(frozen=True)
class Columns:
    """The columns of the matrix that the trees read, made of the input's."""

    n_input: int
    source: NDArray[np.int32]  # (c,) column of the input
    kind: NDArray[np.uint8]  # (c,) PLAIN as it is, BAND with a band for missing, CATEGORY cut to a whole number
    low: float  # of the band
    high: float

    @property
    def plain(self) -> bool:
        return len(self.source) == self.n_input and not self.kind.any()


def columns_of(graph: Graph, trees: Node, *, single: bool) -> Columns:
    """Read the nodes in front of `trees`; raises `Refused`. single: float32 trees, with nothing before them."""
    if single:
        return _columns(_width(graph, trees.inputs[0]), np.zeros(0, np.int64), None, None)
    producers = {output: node for node in graph.nodes for output in node.outputs}
    constants = graph.initializers

    def made_by(name: str, operator: str, n_inputs: int) -> tuple[str, ...]:
        node = producers.get(name)
        if node is None or node.op_type != operator or node.domain not in ("", "ai.onnx") or len(node.inputs) != n_inputs:
            raise Refused(f"{node.op_type if node else 'an input'} in front of the trees, expected {operator}")
        return node.inputs

    (value,) = made_by(trees.inputs[0], "Cast", 1)
    if producers[trees.inputs[0]].attributes.get("to") != _DOUBLE:
        raise Refused("expected a Cast to float64 in front of the trees")
    category = None
    band: tuple[NDArray[Any], NDArray[Any]] | None = None
    if (node := producers.get(value)) and node.op_type == "Where" and node.inputs[0] in constants:
        mask, whole, value = made_by(value, "Where", 3)
        floor, sign = made_by(whole, "Mul", 2)
        (magnitude,), (original,) = made_by(floor, "Floor", 1), made_by(sign, "Sign", 1)
        if made_by(magnitude, "Abs", 1) != (original,):
            raise Refused("a Where in front of the trees that does not cut categories to whole numbers")
        category = constants[mask]
    if (node := producers.get(value)) and node.op_type == "Where":
        within, missing, value = made_by(value, "Where", 3)
        by_value = (node := producers.get(within)) is not None and node.op_type == "Equal"
        compared, bound = made_by(within, "Equal" if by_value else "LessOrEqual", 2)
        of_value = compared == value if by_value else made_by(compared, "Abs", 1) == (value,)
        if not of_value or bound not in constants or not np.isnan(constants[missing]).all():
            raise Refused("a Where in front of the trees that does not take zeros or a value for missing")
        limit = constants[bound]
        band = (limit, limit) if by_value else (-limit, limit)
    if category is not None and original != value:
        raise Refused("categories are cut from something else than the input")
    extra = np.zeros(0, np.int64)
    if (node := producers.get(value)) and node.op_type == "Concat":
        base, gathered = made_by(value, "Concat", 2)
        source, index = made_by(gathered, "Gather", 2)
        if source != base or index not in constants or node.attributes.get("axis") != 1:
            raise Refused("a Concat in front of the trees that does not repeat columns")
        extra, value = constants[index], base
    return _columns(_width(graph, value), extra, category, band)


def _columns(
    width: int, extra: NDArray[Any], category: NDArray[Any] | None, band: tuple[NDArray[Any], NDArray[Any]] | None
) -> Columns:
    source = np.concatenate([np.arange(width), extra.reshape(-1)]).astype(np.int32)
    kind = np.zeros(len(source), np.uint8)
    low, high = np.float32(0), np.float32(0)
    if ((source < 0) | (source >= width)).any():
        raise Refused("a column that is repeated in front of the trees is not there")
    if band is not None:
        lows, highs = (np.broadcast_to(end, (1, len(source)))[0].astype(np.float32) for end in band)
        has_band = lows <= highs
        kind[has_band] = BAND
        if has_band.any():
            low, high = lows[has_band][0], highs[has_band][0]
        if (lows[has_band] != low).any() or (highs[has_band] != high).any():
            raise Refused("columns with different bands of what is missing")
    if category is not None:
        mask = np.broadcast_to(category, (1, len(source)))[0].astype(np.bool_)
        if (kind[mask] != PLAIN).any():
            raise Refused("a category for which zero is missing")
        kind[mask] = CATEGORY
    return Columns(width, source, kind, float(low), float(high))


def _width(graph: Graph, name: str) -> int:
    inputs = {of: (element, shape) for of, element, shape in graph.inputs if of not in graph.initializers}
    element, shape = inputs.get(name, (0, ()))
    if len(inputs) != 1 or element != _FLOAT or len(shape) != 2 or shape[1] is None:  # noqa: PLR2004 - rows and columns
        raise Refused("expected the trees to read one float32 input (n, features)")
    return int(shape[1])
