"""Models that saker did not export: a features file to start from, and a contract written into an ONNX file.

    model file ----template----> FEATURES.toml (check and edit it) ----describe----> the ONNX file with its contract

Such a file is served without a proof of its trees, since nothing here knows what its scores should be. Its golden records have
its own scores of today, which reveals a runtime that gives other ones.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from saker.engine.contract import METADATA_KEY, Contract, Feature
from saker.engine.model.session import Session, open_session
from saker.engine.onnx_metadata import is_proven, read_metadata
from saker.export.errors import BrokenModel, UnsupportedModel
from saker.export.external_models import golden_records, likely_contract
from saker.export.onnx_writer.metadata import write_contract
from saker.export.readers.lightgbm_file import open_model_file

_GOLDEN = 8
_NUMBERS = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.DOUBLE: "float64"}


def template(path: Path) -> tuple[Contract, list[str]]:
    """The features that a model file declares, and notes on what to check. The file is ONNX or LightGBM's.

    Raises BrokenModel for any other file, UnsupportedModel for an ONNX model without a single float32 input.
    """
    if path.suffix != ".onnx":
        return likely_contract(open_model_file(path))
    if METADATA_KEY in read_metadata(_bytes(path)):
        return Contract.from_json(read_metadata(path)[METADATA_KEY]), [f"The contract of {path.name}."]
    graph = _load(path).graph
    width = _width(graph)
    numbers = [output for output in graph.output if output.type.tensor_type.elem_type in _NUMBERS]
    if not numbers:
        raise UnsupportedModel("outputs", f"{path} has no output of numbers")
    output = numbers[-1]  # converters write the class first and the probabilities after it
    columns = [d.dim_value for d in output.type.tensor_type.shape.dim][1:]
    contract = Contract(
        tuple(Feature(f"f{column}") for column in range(width)),
        output=output.name,
        column=columns[0] - 1 if columns and columns[0] else None,
    )
    return contract, [
        f"{path.name}: {width} columns. Give each its field's name; say which are required, and which are categories.",
        f"Outputs of numbers: {', '.join(f'{o.name} {_shape(o)}' for o in numbers)}.",
    ]


def describe(path: Path, contract: Contract) -> Session:
    """Write the contract into the ONNX file, with golden records of the model's own answers, and open it as an engine does.

    Raises UnsupportedModel for a file that `saker export` proved, since its contract is part of that proof, and for a model
    without one float32 input; ModelRefused when an engine would not take it. The file is unchanged then.
    """
    if is_proven(_bytes(path)):
        raise UnsupportedModel("already described", f"{path} was exported and proven with its contract; export it again")
    model = _load(path)
    if (width := _width(model.graph)) != len(contract.features):
        raise UnsupportedModel("features", f"{path} has {width} columns, the features file {len(contract.features)}")
    write_contract(model, contract)
    session = Session(model.SerializeToString(), contract)
    rows = np.random.default_rng(0).normal(size=(_GOLDEN, width)).astype(np.float32)
    rows[_GOLDEN // 2 :] *= 100
    for column, feature in enumerate(contract.features):
        if feature.kind == "category":
            rows[:, column] = np.arange(_GOLDEN) % max(1, len(feature.vocabulary))
    golden = golden_records(contract, rows, session.score)
    if not all(np.isfinite(record.score) for record in golden):
        raise UnsupportedModel("scores", f"{path}: the output {contract.output} gives scores that are not finite numbers")
    # Its own precision: what other runtimes make of float32 arithmetic is not the same to the last digit.
    described = replace(contract, golden=golden, tolerance=1e-5)
    write_contract(model, described)
    data = model.SerializeToString()
    opened = open_session(data)
    path.write_bytes(data)
    return opened


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise BrokenModel("model file", f"no such file: {path}")
    return path.read_bytes()


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(_bytes(path))
    except DecodeError as error:
        raise BrokenModel("model file", f"{path} is not an ONNX file: {error}") from error
    _without_zipmaps(model.graph)
    return model


def _without_zipmaps(graph: Any) -> None:
    """skl2onnx and CatBoost make a dictionary of each row at the end; the tensor before it becomes the output."""
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        labels = [a for a in node.attribute if a.name.startswith("classlabels")]
        classes = max((len(a.ints) + len(a.strings) for a in labels), default=0)
        for place, output in enumerate(graph.output):
            if output.name == node.output[0]:
                tensor = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, ["n", classes or "k"])
                graph.output[place].CopyFrom(tensor)
        graph.node.remove(node)


def _width(graph: Any) -> int:
    """Columns of the one input, which has to be float32 (n, f)."""
    constants = {constant.name for constant in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    tensor = inputs[0].type.tensor_type if len(inputs) == 1 else None
    if tensor is None or tensor.elem_type != onnx.TensorProto.FLOAT or len(tensor.shape.dim) != 2:  # noqa: PLR2004
        found = ", ".join(f"{value.name} {_shape(value)}" for value in inputs)
        raise UnsupportedModel("inputs", f"expected one float32 input (n, f), got {found}")
    width = int(tensor.shape.dim[1].dim_value)
    if not width:
        raise UnsupportedModel("inputs", f"the input {inputs[0].name} does not say how many columns it has")
    return width


def _shape(value: Any) -> str:
    tensor = value.type.tensor_type
    return json.dumps([d.dim_param or d.dim_value for d in tensor.shape.dim]).replace('"', "")
