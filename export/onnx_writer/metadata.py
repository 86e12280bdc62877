"""The metadata of the ONNX file besides the graph, written and read back. Pure.

Entries of `metadata_props`:

- `saker.contract`: what the model expects and promises (`saker.engine.contract`), all that an engine reads;
- `saker.export`: a JSON object (`ModelFacts`): where the trees came from;
- `saker.parity`: the JSON of the `ParityReport`, written once it is known (`write_proof`);
- `saker.card`: the model card, Markdown for people;
- `saker.training_rows`: training rows of every node and every leaf, for exact contributions (TreeSHAP weighs a branch by
  them): int32, little endian, deflated, base64. Node i of the array is node i of the TreeEnsemble operator, then the
  leaves in the operator's order. They are not in `nodes_hitrates`, the attribute meant for this: it has no place for
  leaves, and onnxruntime refuses a float64 TreeEnsemble that carries it, whatever its type.
"""

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, StringStringEntryProto, helper, numpy_helper

from saker.engine.contract import METADATA_KEY, Contract
from saker.engine.onnx_metadata import PARITY_KEY
from saker.export.errors import BrokenModel

FACTS_KEY = "saker.export"
CARD_KEY = "saker.card"
ROWS_KEY = "saker.training_rows"
FORMAT_VERSION = 1
#: Attributes of a TreeEnsemble that are tensors; the others are lists.
TENSORS = ("nodes_splits", "nodes_modes", "leaf_weights", "membership_values")


@dataclass(frozen=True)
class ModelFacts:
    """The JSON of `saker.export`."""

    format_version: int
    source: str  # "LightGBM v4"
    objective: str
    sigmoid: float
    averaged: bool  # `raw` is the sum of the trees, `score` is made of their mean
    iterations: int
    n_trees: int


def write_metadata(
    model: ModelProto, contract: Contract, facts: ModelFacts, node_rows: NDArray[np.int32], leaf_rows: NDArray[np.int32]
) -> None:
    """Add contract, facts and training rows. node_rows: (nodes,), leaf_rows: (leaves,), in the operator's order."""
    packed = zlib.compress(np.concatenate([node_rows, leaf_rows]).astype("<i4").tobytes(), 6)
    entries = {
        METADATA_KEY: contract.to_json(),
        FACTS_KEY: json.dumps(asdict(facts), ensure_ascii=False),
        ROWS_KEY: base64.b64encode(packed).decode(),
    }
    _write(model, entries)


def write_contract(model: ModelProto, contract: Contract) -> None:
    """Put the contract in place of an earlier one, and nothing else."""
    _write(model, {METADATA_KEY: contract.to_json()})


def write_proof(model: ModelProto, parity: str, card: str) -> None:
    """Add the parity report (JSON) and the model card (Markdown), in place of earlier ones."""
    _write(model, {PARITY_KEY: parity, CARD_KEY: card})


def _write(model: ModelProto, entries: dict[str, str]) -> None:
    kept = [entry for entry in model.metadata_props if entry.key not in entries]
    kept += [StringStringEntryProto(key=key, value=value) for key, value in entries.items()]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def read_contract(model: ModelProto) -> Contract:
    """The contract of an exported model; raises BrokenModel if it has none, ModelRefused if it is damaged."""
    return Contract.from_json(_entry(model, METADATA_KEY))


def read_facts(model: ModelProto) -> ModelFacts:
    """The facts of an exported model; raises BrokenModel if it has none or another format version."""
    facts = ModelFacts(**json.loads(_entry(model, FACTS_KEY)))
    if facts.format_version != FORMAT_VERSION:
        raise BrokenModel(FACTS_KEY, f"expected format version {FORMAT_VERSION}, got {facts.format_version}")
    return facts


def read_training_rows(model: ModelProto) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Training rows of the operator's nodes (nodes,) and leaves (leaves,), int32; all 0 where the source had none."""
    rows = np.frombuffer(zlib.decompress(base64.b64decode(_entry(model, ROWS_KEY))), "<i4")
    n_nodes = len(tree_attributes(model)["nodes_featureids"])
    return rows[:n_nodes], rows[n_nodes:]


def tree_attributes(model: ModelProto) -> dict[str, Any]:
    """The attributes of the model's one TreeEnsemble, lists and tensors as numpy arrays."""
    nodes = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    if len(nodes) != 1:
        raise BrokenModel("graph", f"expected one TreeEnsemble, got {len(nodes)}")
    found = {}
    for attribute in nodes[0].attribute:
        if attribute.HasField("t"):
            found[attribute.name] = numpy_helper.to_array(attribute.t)
        elif attribute.ints:
            found[attribute.name] = np.array(attribute.ints, np.int64)
        else:
            found[attribute.name] = helper.get_attribute_value(attribute)
    return found


def _entry(model: ModelProto, key: str) -> str:
    for entry in model.metadata_props:
        if entry.key == key:
            return str(entry.value)
    raise BrokenModel("metadata", f"the model has no {key}: it was not written by this exporter")
