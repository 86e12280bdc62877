"""The reader gives what the `onnx` package gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.onnx_reader.protobuf import integers, message, numbers
from saker.engine.protobuf import BYTES, FIXED32, VARINT
from tests.support.examples import examples

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)


def model_with(attributes: dict[str, Any], initializers: list[onnx.TensorProto] | None = None) -> bytes:
    node = helper.make_node("Thing", ["a", ""], ["b"], domain="some.domain", **attributes)
    a, b = helper.make_tensor_value_info("a", 11, None), helper.make_tensor_value_info("b", 1, None)
    graph = helper.make_graph([node], "g", [a], [b], initializers or [])
    return bytes(helper.make_model(graph).SerializeToString())


@settings(max_examples=examples(200))
@given(st.lists(INT64, min_size=1, max_size=40), INT64, st.lists(FLOAT32, min_size=1, max_size=40), st.text(max_size=20))
def test_attributes(ints: list[int], number: int, reals: list[float], text: str) -> None:
    real, texts = reals[0], [text, "", text]
    graph = read_graph(model_with({"many": ints, "one": number, "real": real, "reals": reals, "text": text, "texts": texts}))
    (node,) = graph.nodes
    assert node.attributes["reals"].tolist() == reals
    assert node.attributes["texts"] == [text.encode(), b"", text.encode()]
    assert node.attributes["many"].tolist() == ints
    assert (node.attributes["one"], node.attributes["real"], node.attributes["text"]) == (number, real, text.encode())
    assert (node.op_type, node.domain, node.inputs, node.outputs) == ("Thing", "some.domain", ("a", ""), ("b",))
    assert (graph.inputs, graph.outputs) == ((("a", 11, ()),), ("b",))


NUMBERS = [1, 2, 300, -1]
UNPACKED = b"".join(b"\x40" + v for v in (b"\x01", b"\x02", b"\xac\x02", b"\xff" * 9 + b"\x01"))
PACKED = b"\x42\x0e\x01\x02\xac\x02" + b"\xff" * 9 + b"\x01"
MIXED = UNPACKED[:2] + PACKED[:1] + b"\x0d" + PACKED[3:]
LONG_TAG = UNPACKED.replace(b"\x40\x02", b"\xc0\x00\x02")


@pytest.mark.parametrize("written", [UNPACKED, PACKED, MIXED, LONG_TAG], ids=["unpacked", "packed", "mixed", "long tag"])
@pytest.mark.parametrize("runs", [(), (8,)])
def test_a_list_of_integers_may_be_written_in_several_ways(written: bytes, runs: tuple[int, ...]) -> None:
    """proto3 writers pack a list of numbers into one field; onnx's own writer does not."""
    assert onnx.AttributeProto.FromString(written).ints == NUMBERS
    assert integers(message(memoryview(written), {8: (VARINT, BYTES)}, runs)[8]).tolist() == NUMBERS


FLOATS = np.array([1.5, -2.0, 3e38], np.float32)
UNPACKED_FLOATS = b"".join(b"\x3d" + value.tobytes() for value in FLOATS)
PACKED_FLOATS = b"\x3a\x0c" + FLOATS.tobytes()


@pytest.mark.parametrize("written", [UNPACKED_FLOATS, PACKED_FLOATS, UNPACKED_FLOATS[:5] + b"\x3a\x08" + FLOATS[1:].tobytes()])
@pytest.mark.parametrize("behind", [b"", b"\x18\x07", b"\x18\x80\x80\x01"])
@pytest.mark.parametrize("runs", [(), (7,)])
def test_a_list_of_floats_may_be_written_in_several_ways(written: bytes, behind: bytes, runs: tuple[int, ...]) -> None:
    data = written + behind
    assert list(onnx.AttributeProto.FromString(data).floats) == FLOATS.tolist()
    found = message(memoryview(data), {3: (VARINT,), 7: (FIXED32, BYTES)}, runs)
    assert numbers(found[7], np.float32).tolist() == FLOATS.tolist()
    assert len(found[3]) == bool(behind)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_tensors(dtype: Any, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) - 1).astype(dtype)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in (numpy_helper.from_array(array, "t"), helper.make_tensor("t", element, shape, array.ravel())):
        got = read_graph(model_with({"tensor": tensor}, [tensor]))
        for found in (got.initializers["t"], got.nodes[0].attributes["tensor"]):
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, array, strict=True)


@settings(max_examples=examples(300))
@given(st.binary(max_size=60))
def test_any_bytes_are_a_graph_or_refused(data: bytes) -> None:
    try:
        read_graph(data)
    except Refused:
        return
    onnx.ModelProto.FromString(data)  # what is read is a message


@pytest.mark.parametrize(
    ("shape", "expected"), [(None, ()), ([], ()), ([None, 7], (None, 7)), (["n", 3], (None, 3)), ([2, 0], (2, 0))]
)
def test_input_shapes(shape: Any, expected: tuple[int | None, ...]) -> None:
    graph = helper.make_graph([], "g", [helper.make_tensor_value_info("a", 1, shape)], [])
    assert read_graph(helper.make_model(graph).SerializeToString()).inputs == (("a", 1, expected),)
