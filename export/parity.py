"""The proof that a model scores as its Booster does: the same leaf in every tree, and the same sum."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from engine.errors import SakerError
from export.booster import read_booster
from export.convert import INPUT, OUTPUT
from export.rows import adversarial_rows

#: Largest relative difference of two margins. Both add the same leaves; only the order may differ.
MARGIN_TOLERANCE = 1e-9


class ParityError(SakerError):
    """A converted model does not score as LightGBM does."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared, over how many rows, and how far apart the two were."""

    rows: int
    trees: int
    nodes: int
    wrong_leaves: int
    max_margin_error: float
    max_score_error: float

    @property
    def passed(self) -> bool:
        return not self.wrong_leaves and self.max_margin_error <= MARGIN_TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows on and beside {self.nodes:,} splits of {self.trees:,} trees: "
            f"{self.wrong_leaves} wrong leaves, margins within {self.max_margin_error:.1e} (relative), "
            f"scores within {self.max_score_error:.1e}"
        )


def check_parity(booster: Any, model: onnx.ModelProto) -> ParityReport:
    """Compare `model` with `booster` (lightgbm.Booster) on adversarial rows; `passed` says whether they agree."""
    ensemble = read_booster(booster)
    outputs = _prepare(model)
    threads = max(1, (os.cpu_count() or 2) // 2)
    rows = wrong = 0
    margin_error = score_error = 0.0
    for x in adversarial_rows(ensemble):
        scores, margins, leaves = outputs(x)
        rows += len(x)
        expected = booster.predict(x, pred_leaf=True, num_threads=threads).reshape(leaves.shape)
        wrong += int((leaves != expected).sum())
        expected = booster.predict(x, raw_score=True, num_threads=threads)
        margin_error = max(margin_error, _largest(np.abs(margins - expected) / np.maximum(np.abs(expected), 1)))
        expected = booster.predict(x, num_threads=threads)
        score_error = max(score_error, _largest(np.abs(scores - expected)))
    nodes = sum(len(tree.feature) for tree in ensemble.trees)
    return ParityReport(rows, len(ensemble.trees), nodes, wrong, margin_error, score_error)


def _largest(errors: NDArray[np.float64]) -> float:
    return float(np.where(np.isnan(errors), np.inf, errors).max())


def _prepare(model: onnx.ModelProto) -> Any:
    """A function of x to the model's scores (n,), margins (n,) and leaves (n, trees).

    Margins and leaves come from the model's own TreeEnsemble: the first as it is, the second with each leaf's weight
    replaced by its number in its tree, added to a target of its own for each tree.
    """
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsemble")
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    roots = attributes["tree_roots"]
    trees, numbers = _number_leaves(attributes)
    leaf_node = onnx.NodeProto()
    leaf_node.CopyFrom(node)
    leaf_node.output[0] = "leaf"
    del leaf_node.attribute[:]
    changed = {
        **attributes,
        "n_targets": len(roots),
        "leaf_targetids": trees,
        "leaf_weights": helper.make_tensor("", onnx.TensorProto.DOUBLE, [len(numbers)], numbers),
    }
    leaf_node.attribute.extend(helper.make_attribute(name, value) for name, value in changed.items())
    probe.graph.node.append(leaf_node)
    margin = node.output[0]
    for name, columns in ((margin, 1), ("leaf", len(roots))):
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["n", columns]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"]).run

    def outputs(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        scores, margins, leaves = run([OUTPUT, margin, "leaf"], {INPUT: x})
        return scores.reshape(-1), margins.reshape(-1), leaves.astype(np.int64)

    return outputs


def _number_leaves(attributes: dict[str, Any]) -> tuple[list[int], list[float]]:
    """For each leaf of a TreeEnsemble the tree that it hangs on, and its number among that tree's leaves."""
    sides = [
        (attributes["nodes_truenodeids"], attributes["nodes_trueleafs"]),
        (attributes["nodes_falsenodeids"], attributes["nodes_falseleafs"]),
    ]
    count = len(attributes["leaf_targetids"])
    trees, numbers = [0] * count, [0.0] * count
    for tree, root in enumerate(attributes["tree_roots"]):
        stack, leaves = [root], set()
        while stack:
            node = stack.pop()
            for children, is_leaf in sides:
                if is_leaf[node]:
                    leaves.add(children[node])
                else:
                    stack.append(children[node])
        for leaf in leaves:
            trees[leaf], numbers[leaf] = tree, float(leaf - min(leaves))
    return trees, numbers
