"""Reads the graph of an ONNX file, as much as a tree ensemble needs. Pure functions over bytes; nothing is kept.

Why not the `onnx` package: importing it costs every worker about 55 ms and 13 MB, and it makes a Python list of every node
attribute. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.protobuf import integers, message, numbers, signed, text
from saker.engine.protobuf import BYTES, FIXED32, FIXED64, VARINT

_TENSOR_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}
_INTEGERS = (VARINT, BYTES)  # a repeated number may come packed
_FLOATS = (FIXED32, BYTES)
_DOUBLES = (FIXED64, BYTES)
# The fields that are read of each message, and how they may be written.
_MODEL = {7: (BYTES,)}
_GRAPH = {1: (BYTES,), 5: (BYTES,), 11: (BYTES,), 12: (BYTES,)}
_NODE = {1: (BYTES,), 2: (BYTES,), 4: (BYTES,), 5: (BYTES,), 7: (BYTES,)}
_ATTRIBUTE = {
    1: (BYTES,), 2: (FIXED32,), 3: (VARINT,), 4: (BYTES,), 5: (BYTES,), 7: _FLOATS, 8: _INTEGERS, 9: (BYTES,), 20: (VARINT,),
}  # fmt: skip
_TENSOR = {
    1: _INTEGERS, 2: (VARINT,), 4: _FLOATS, 5: _INTEGERS, 7: _INTEGERS, 8: (BYTES,), 9: (BYTES,), 10: _DOUBLES, 14: (VARINT,),
}  # fmt: skip
_VALUE_INFO = {1: (BYTES,), 2: (BYTES,)}
_TYPE = {1: (BYTES,)}
_TENSOR_TYPE = {1: (VARINT,), 2: (BYTES,)}
_SHAPE = {1: (BYTES,)}
_DIMENSION = {1: (VARINT,)}
_FLOAT_LIST, _INTEGER_LIST = 6, 7  # AttributeProto.Type
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL
_DEEPEST = 64


@dataclass(frozen=True)
class Node:
    """A graph node; attributes are ints, floats, bytes, arrays or lists of bytes, by name."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """The parts of a model that decide how it is scored."""

    nodes: tuple[Node, ...]
    initializers: dict[str, NDArray[Any]]
    inputs: tuple[tuple[str, int, tuple[int | None, ...]], ...]  # name, element type, shape with None where it is open
    outputs: tuple[str, ...]


def read_graph(data: bytes | memoryview) -> Graph:
    """The graph of an ONNX model in bytes. Raises `Refused`."""
    model = message(memoryview(data), _MODEL)
    if not model[7]:
        raise Refused("no graph: the file is not an ONNX model")
    graph = message(model[7][-1], _GRAPH)
    return Graph(
        nodes=tuple(_node(n) for n in graph[1]),
        initializers=dict(_tensor(t) for t in graph[5]),
        inputs=tuple(_value_info(v) for v in graph[11]),
        outputs=tuple(_value_info(v)[0] for v in graph[12]),
    )


def external_tensors(data: bytes | memoryview) -> list[str]:
    """Names of the tensors of a model that are in other files, wherever they are used: as initializers, as attributes, in the
    bodies of nodes and functions. Raises `Refused`."""
    functions, steps, graphs = _parts(memoryview(data), 25, 20, 7)
    nodes = [node for function in functions for (nodes,) in [_parts(function, 7)] for node in nodes]
    graphs += [graph for step in steps for parts in _parts(step, 1, 2) for graph in parts]
    found: list[str] = []
    for _ in range(_DEEPEST):
        tensors: list[memoryview] = []
        for graph in graphs:
            own, initializers, sparse = _parts(graph, 1, 5, 15)
            nodes += own
            tensors += [*initializers, *_of_sparse(sparse)]
        graphs = []
        for node in nodes:
            for attribute in _parts(node, 5)[0]:
                one, several, body, bodies, sparse, sparses = _parts(attribute, 5, 10, 6, 11, 22, 23)
                graphs += [*body, *bodies]
                tensors += [*one, *several, *_of_sparse([*sparse, *sparses])]
        nodes = []
        for tensor in tensors:
            parts = message(tensor, {8: (BYTES,), 14: (VARINT,)})
            if _EXTERNAL in parts[14]:
                found.append(text(parts[8]))
        if not graphs:
            return found
    raise Refused(f"graphs within each other, more than {_DEEPEST} deep")


def _parts(data: memoryview, *fields: int) -> list[list[memoryview]]:
    """The messages in these fields of one."""
    found = message(data, dict.fromkeys(fields, (BYTES,)), runs=(7, 8))
    return [found[field] for field in fields]


def _of_sparse(tensors: list[memoryview]) -> list[memoryview]:
    """Values and indices."""
    return [tensor for sparse in tensors for parts in _parts(sparse, 1, 2) for tensor in parts]


def _node(data: memoryview) -> Node:
    node = message(data, _NODE)
    inputs, outputs = (tuple(text([name]) for name in node[i]) for i in (1, 2))
    return Node(text(node[4]), text(node[7]), inputs, outputs, dict(_attribute(a) for a in node[5]))


def _attribute(data: memoryview) -> tuple[str, Any]:
    attribute = message(data, _ATTRIBUTE, runs=(7, 8))
    value: Any = None
    if attribute[8] or _INTEGER_LIST in attribute[20]:
        value = integers(attribute[8])
    elif attribute[7] or _FLOAT_LIST in attribute[20]:
        value = numbers(attribute[7], np.float32)
    elif attribute[9]:
        value = [bytes(one) for one in attribute[9]]
    elif attribute[5]:
        value = _tensor(attribute[5][-1])[1]
    elif attribute[4]:
        value = bytes(attribute[4][-1])
    elif attribute[3]:
        value = signed(attribute[3][-1])
    elif attribute[2]:
        value = float(numbers(attribute[2], np.float32)[-1])
    return text(attribute[1]), value


def _tensor(data: memoryview) -> tuple[str, NDArray[Any]]:
    tensor = message(data, _TENSOR)
    name, shape = text(tensor[8]), integers(tensor[1]).tolist()
    if _EXTERNAL in tensor[14]:
        raise Refused(f"tensor '{name}' is in another file: save the model as one file")
    kind = _TENSOR_TYPES.get(tensor[2][-1] if tensor[2] else 0)
    if kind is None:
        return name, np.empty(0)  # a type that no ensemble uses
    if tensor[9]:
        array = numbers(tensor[9][-1:], kind)
    elif kind is np.float32:
        array = numbers(tensor[4], np.float32)
    elif kind is np.float64:
        array = numbers(tensor[10], np.float64)
    else:
        array = integers(tensor[7] if kind is np.int64 else tensor[5]).astype(kind)
    if min(shape, default=0) < 0 or int(np.prod(shape, dtype=object)) != array.size:
        raise Refused(f"tensor '{name}': {array.size} values do not fill shape {shape}")
    return name, array.reshape(shape)


def _value_info(data: memoryview) -> tuple[str, int, tuple[int | None, ...]]:
    value = message(data, _VALUE_INFO)
    element = 0
    shape: tuple[int | None, ...] = ()
    for kind in (k for v in value[2] for k in message(v, _TYPE)[1]):
        tensor = message(kind, _TENSOR_TYPE)
        element = tensor[1][-1] if tensor[1] else 0
        dimensions = [message(d, _DIMENSION)[1] for s in tensor[2] for d in message(s, _SHAPE)[1]]
        shape = tuple(signed(d[-1]) if d else None for d in dimensions)
    return text(value[1]), element, shape
