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

from saker.engine.onnx_trees import MEMBER
from saker.export.onnx_writer.metadata import TENSORS, tree_attributes


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
        self._attributes = tree_attributes(model)
        self.n_trees = len(n_leaves)
        self.n_outputs = int(self._attributes["n_targets"])
        # `convert` writes a tree's m nodes and m + 1 leaves in one piece each, tree after tree.
        self._first_node = np.append(self._attributes["tree_roots"], len(self._attributes["nodes_featureids"]))
        self._first_leaf = self._first_node + np.arange(self.n_trees + 1)
        self._last = np.array(n_leaves) - 1
        self._weights = np.asarray(self._attributes["leaf_weights"], np.float64)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def leaves(self, rows: NDArray[np.float32], iteration: int | None = None) -> NDArray[np.int64]:
        """(n, trees) the leaf of each tree, or of those of one iteration alone.

        A tree of a single leaf was exported with two, which are one here.
        """
        first, last = (0, self.n_trees) if iteration is None else (iteration * self.n_outputs, (iteration + 1) * self.n_outputs)
        leaf = np.arange(self._first_leaf[first], self._first_leaf[last])
        leaf -= np.repeat(self._first_leaf[first:last], np.diff(self._first_leaf[first : last + 1]))
        if iteration is None:
            found = self._kept("leaves", leaf.astype(np.float64), rows)
        else:
            found = _ask(open_session(self._of_trees(first, last, leaf.astype(np.float64))), rows)
        return np.asarray(np.minimum(np.rint(found).astype(np.int64), self._last[first:last]))

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, trees) what each tree adds."""
        return self._kept("values", self._weights, rows)

    def leaf_values(self, tree: int) -> NDArray[np.float64]:
        """(leaves,) the value of each leaf of the tree in the file."""
        return self._weights[self._first_leaf[tree] :][: self._last[tree] + 1]

    def _kept(self, name: str, weights: NDArray[np.float64], rows: NDArray[np.float32]) -> NDArray[np.float64]:
        if name not in self._sessions:
            self._sessions[name] = open_session(self._of_trees(0, self.n_trees, weights))
        return _ask(self._sessions[name], rows)

    def _of_trees(self, first: int, last: int, weights: NDArray[np.float64]) -> ModelProto:
        """The model with only the trees first..last - 1, each as a separate output, and these weights of their leaves."""
        source = self._model.graph
        at = next(i for i, node in enumerate(source.node) if node.op_type == "TreeEnsemble")
        trees = helper.make_node("TreeEnsemble", source.node[at].input, ["by_tree"], domain="ai.onnx.ml")
        for key, value in {**self._cut(first, last), "leaf_weights": weights}.items():
            as_tensor = key in TENSORS
            trees.attribute.append(helper.make_attribute(key, numpy_helper.from_array(value) if as_tensor else value))
        used = {name for node in [*source.node[:at], trees] for name in node.input}
        graph = helper.make_graph(
            [*source.node[:at], trees],
            "probe",
            list(source.input),
            [helper.make_tensor_value_info("by_tree", TensorProto.DOUBLE, ["n", last - first])],
            [constant for constant in source.initializer if constant.name in used],
        )
        return helper.make_model(graph, opset_imports=list(self._model.opset_import), ir_version=self._model.ir_version)

    def _cut(self, first: int, last: int) -> dict[str, Any]:
        """The operator's attributes of these trees, their nodes and leaves counted from 0."""
        old = self._attributes
        nodes = slice(self._first_node[first], self._first_node[last])
        cut: dict[str, Any] = {key: value[nodes] for key, value in old.items() if key.startswith("nodes_")}
        for side in ("true", "false"):
            start = np.where(cut[f"nodes_{side}leafs"], self._first_leaf[first], nodes.start)
            cut[f"nodes_{side}nodeids"] = cut[f"nodes_{side}nodeids"] - start
        sizes = np.diff(self._first_leaf[first : last + 1])
        cut |= {
            "n_targets": last - first,
            "aggregate_function": old["aggregate_function"],
            "post_transform": old["post_transform"],
            "tree_roots": self._first_node[first:last] - nodes.start,
            "leaf_targetids": np.repeat(np.arange(last - first), sizes),
        }
        if "membership_values" in old:
            # The sets are in the order of their nodes, each closed by a NaN.
            ends = np.append(0, np.flatnonzero(np.isnan(old["membership_values"])) + 1)
            before, after = (int((old["nodes_modes"][:node] == MEMBER).sum()) for node in (nodes.start, nodes.stop))
            if after > before:
                cut["membership_values"] = old["membership_values"][ends[before] : ends[after]]
        lists = {key: value.tolist() for key, value in cut.items() if isinstance(value, np.ndarray) and key not in TENSORS}
        return {**cut, **lists}


def _ask(session: onnxruntime.InferenceSession, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    result: Any = session.run(["by_tree"], {"features": rows})[0]
    return np.asarray(result)
