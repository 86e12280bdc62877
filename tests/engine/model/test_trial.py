"""Model files that are damaged or made to harm: refused with a reason, in a bounded time, and nobody ends by them."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import pytest

import saker
from saker.engine.contract import Contract, Feature
from saker.engine.errors import ModelRefused
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.graph import external_tensors, read_graph
from saker.engine.model.session import open_session
from saker.engine.model.trial import try_model


@pytest.fixture(scope="module")
def good() -> bytes:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 4)).astype(np.float32)
    dataset = lightgbm.Dataset(x, x[:, 0] + x[:, 1] > 0, feature_name=["a", "b", "c", "d"])
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, dataset, 8)
    data: bytes = saker.to_onnx(booster, saker.contract_for(booster)).SerializeToString()
    return data


def trees(model: onnx.ModelProto) -> dict[str, onnx.AttributeProto]:
    node = next(node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    return {attribute.name: attribute for attribute in node.attribute}


def with_cycle(model: onnx.ModelProto) -> None:
    attributes = trees(model)
    attributes["nodes_truenodeids"].ints[1] = attributes["nodes_falsenodeids"].ints[1] = 0
    attributes["nodes_trueleafs"].ints[1] = attributes["nodes_falseleafs"].ints[1] = 0


def with_shared_node(model: onnx.ModelProto) -> None:
    attributes = trees(model)
    at = next(i for i, leaf in enumerate(attributes["nodes_trueleafs"].ints) if not leaf)
    attributes["nodes_falsenodeids"].ints[at] = attributes["nodes_truenodeids"].ints[at]
    attributes["nodes_falseleafs"].ints[at] = 0


def with_external_initializer(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="elsewhere", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/hostname")


def with_external_attribute(model: onnx.ModelProto) -> None:
    attribute = trees(model)["nodes_splits"]
    attribute.t.ClearField("raw_data")
    attribute.t.data_location = 1
    attribute.t.external_data.add(key="location", value="other.bin")


def with_few_leaves(model: onnx.ModelProto) -> None:
    del trees(model)["leaf_targetids"].ints[-1]


def with_text_for_numbers(model: onnx.ModelProto) -> None:
    trees(model)["nodes_featureids"].CopyFrom(onnx.helper.make_attribute("nodes_featureids", ["many"]))


def with_scalar_for_a_list(model: onnx.ModelProto) -> None:
    trees(model)["nodes_modes"].t.CopyFrom(onnx.numpy_helper.from_array(np.uint8(0)))


def with_feature_that_is_not_there(model: onnx.ModelProto) -> None:
    trees(model)["nodes_featureids"].ints[0] = 4_000_000


@pytest.mark.parametrize(
    "change",
    [
        with_cycle,
        with_shared_node,
        with_external_initializer,
        with_external_attribute,
        with_few_leaves,
        with_text_for_numbers,
        with_scalar_for_a_list,
        with_feature_that_is_not_there,
    ],
)
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_damage_is_refused(change: Callable[[onnx.ModelProto], None], kernels: str, good: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(good)
    change(model)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRefused):
        try_model(path, "fraud/1", kernels, seconds=10)


def test_what_hangs_and_what_crashes_is_named(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fine.onnx"
    path.write_bytes(good)
    try_model(path, "fraud/1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    hook = tmp_path / "sitecustomize.py"
    hook.write_text("import signal; signal.pause()")
    with pytest.raises(ModelRefused, match=r"model fraud/1: its file is damaged, not done after 1 s while it was opened"):
        try_model(path, "fraud/1", seconds=1)
    hook.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ModelRefused, match=r"its file is damaged, its process ended with -9 while it was opened"):
        try_model(path, "fraud/1")


def test_a_model_with_a_cycle_never_gets_to_onnxruntimes_scoring(good: bytes) -> None:
    model = onnx.load_from_string(good)
    with_cycle(model)
    with pytest.raises(ModelRefused, match=r"do not form trees|contains a cycle"):
        open_session(model.SerializeToString(), "auto")


def test_tensors_in_other_files_are_found_wherever_they_are(good: bytes) -> None:
    assert external_tensors(good) == []

    def outside(name: str) -> onnx.TensorProto:
        return onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=1)

    def constant(name: str) -> onnx.NodeProto:
        return onnx.helper.make_node("Constant", [], ["c"], value=outside(name))

    body = onnx.helper.make_graph([constant("in a body")], "body", [], [])
    model = onnx.load_from_string(good)
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["o"], then_branch=body, else_branch=body))
    model.graph.sparse_initializer.add().values.CopyFrom(outside("sparse"))
    model.functions.add(name="f").node.append(constant("in a function"))
    found = external_tensors(model.SerializeToString())
    assert sorted(found) == ["in a body", "in a body", "in a function", "sparse"]


def test_flipped_and_cut_bytes_are_refused_or_another_model(good: bytes) -> None:
    rng = random.Random(6)
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(rng.choice((1, 1, 3))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            read_graph(bytes(damaged))
            external_tensors(bytes(damaged))
        except Refused:
            refused += 1
    assert refused > 20


def field(number: int, data: bytes) -> bytes:
    return onnx_varint(number << 3 | 2) + onnx_varint(len(data)) + data


def onnx_varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def alternating(count: int) -> bytes:
    """An attribute of single float32 numbers, each behind the attribute's type."""
    number = bytes([7 << 3 | 5, 0, 0, 128, 63])
    attribute = field(1, b"nodes_values") + (number + b"\xa0\x01\x07") * count
    return field(7, field(1, field(5, attribute)))


def test_reading_takes_linear_time() -> None:
    """Thirty times as much takes less than three hundred times as long: quadratic reading took nine hundred."""
    sizes = (2_000, 60_000)
    for make in (alternating, lambda n: b"\xff" * n, lambda n: field(7, field(1, field(5, b"\x40\x01" * n)))):
        times = []
        for size in sizes:
            started = time.process_time()
            for work in (read_graph, saker.read_contract):
                with contextlib.suppress(Refused, ModelRefused):
                    work(make(size))
            times.append(time.process_time() - started)
        assert times[1] < 300 * max(times[0], 1e-3)


def test_a_number_that_is_cut_short_ends() -> None:
    attribute = field(1, b"nodes_values") + bytes([7 << 3 | 5, 0, 0])
    with pytest.raises(Refused, match="cut short"):
        read_graph(field(7, field(1, field(5, attribute))))


def test_a_contract_of_many_features_is_checked_in_linear_time() -> None:
    Contract(tuple(Feature(f"f{i}") for i in range(100_000)))
