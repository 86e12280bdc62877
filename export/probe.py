"""Asks onnxruntime which leaf of every tree a row ends in. It lives for one parity check.

An exported model only gives sums. The probe is the same model with other leaves: leaf j of tree t adds j to output t, so one
run gives the leaf of every tree, by the engine's own walk. With the values left as they are it gives each tree's share.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.metadata import tree_attributes


def open_session(model: ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session in which onnxruntime adds the trees in their order, as LightGBM does (it does so on one thread only)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class LeafProbe:
    """Leaves and values by tree of an exported model; sessions are opened when they are first asked for."""

    def __init__(self, model: ModelProto, n_leaves: Sequence[int]) -> None:
        """n_leaves: of each tree, as the library counts them."""
        self._model = model
        attributes = tree_attributes(model)
        roots = attributes["tree_roots"]
        n_nodes = len(attributes["nodes_featureids"])
        # `convert` writes a tree's m nodes and m + 1 leaves in one piece each, tree after tree.
        self.n_trees = len(roots)
        written = np.diff(np.append(roots, n_nodes)) + 1
        self._last = np.array(n_leaves) - 1
        self._tree = np.repeat(np.arange(self.n_trees), written)
        self._leaf = np.concatenate([np.arange(n) for n in written]).astype(np.float64)
        self._weight = np.asarray(attributes["leaf_weights"], np.float64)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def leaves(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """(n, trees) the leaf of each tree; a tree of a single leaf was exported with two, which are one here."""
        found = np.rint(self._run("leaves", self._leaf, rows)).astype(np.int64)
        return np.asarray(np.minimum(found, self._last))

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, trees) what each tree adds."""
        return self._run("values", self._weight, rows)

    def _run(self, name: str, weights: NDArray[np.float64], rows: NDArray[np.float32]) -> NDArray[np.float64]:
        if name not in self._sessions:
            self._sessions[name] = open_session(self._with_leaves(weights))
        result: Any = self._sessions[name].run(["by_tree"], {"features": rows})[0]
        return np.asarray(result)

    def _with_leaves(self, weights: NDArray[np.float64]) -> ModelProto:
        source = self._model.graph
        at = next(i for i, node in enumerate(source.node) if node.op_type == "TreeEnsemble")
        trees = helper.make_node("TreeEnsemble", source.node[at].input, ["by_tree"], domain="ai.onnx.ml")
        replaced = {
            "n_targets": self.n_trees,
            "leaf_targetids": self._tree.tolist(),
            "leaf_weights": numpy_helper.from_array(weights),
        }
        trees.attribute.extend(a for a in source.node[at].attribute if a.name not in replaced)
        trees.attribute.extend(helper.make_attribute(key, value) for key, value in replaced.items())
        used = {name for node in [*source.node[:at], trees] for name in node.input}
        graph = helper.make_graph(
            [*source.node[:at], trees],
            "probe",
            list(source.input),
            [helper.make_tensor_value_info("by_tree", TensorProto.DOUBLE, ["n", self.n_trees])],
            [constant for constant in source.initializer if constant.name in used],
        )
        return helper.make_model(graph, opset_imports=list(self._model.opset_import), ir_version=self._model.ir_version)
