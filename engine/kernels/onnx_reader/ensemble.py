"""A tree ensemble as flat arrays, read from an ONNX file and brought to two kinds of node.

    model.onnx --graph, earlier--> Graph --ensemble_of--> Ensemble --trees--> native Plan

Numeric node: true if x <= threshold, for float32 x. Set node: true if x equals a member. Every mode of `ai.onnx.ml` 5
`TreeEnsemble` becomes one of them without changing a decision: x <= t is x <= floor32(t); x < t is x <= the float32 below;
>= and > are < and <= with the branches swapped; == and != are sets of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.graph import Graph, Node
from saker.engine.kernels.onnx_reader.input_columns import Columns, columns_of
from saker.engine.onnx_trees import EQ, GT, GTE, LT, MEMBER, NEQ, floor32

_AVERAGE, _SUM = 0, 1


@dataclass(frozen=True)
class CategorySets:
    """The distinct sets that nodes ask of one feature, as bits: row 0 no member, row 1 NaN, row 2 + i value i."""

    feature: int
    values: NDArray[Any]  # float32, ascending
    bits: NDArray[Any]  # uint8 (values + 2, ceil(count / 8))
    count: int


@dataclass(frozen=True)
class Ensemble:
    """Arrays over nodes and leaves. A reference is a node (>= 0) or ~leaf (< 0)."""

    n_features: int
    n_targets: int
    average: bool
    single: bool  # it is one of float32: sums are rounded to that after each addition
    root: NDArray[Any]  # int32 (trees,) reference
    feature: NDArray[Any]  # int32 (nodes,)
    nan_true: NDArray[Any]  # uint8 (nodes,) NaN takes the true branch
    threshold: NDArray[Any]  # float32 (nodes,)
    set: NDArray[Any]  # int32 (nodes,) number of the set among its feature's, -1: numeric
    yes: NDArray[Any]  # int32 (nodes,) reference
    no: NDArray[Any]  # int32 (nodes,) reference
    leaf_value: NDArray[Any]  # float64 (leaves,)
    leaf_target: NDArray[Any]  # int32 (leaves,)
    sets: tuple[CategorySets, ...]
    output: str  # the graph's name for the raw sums


def ensemble_of(graph: Graph) -> tuple[Ensemble, Columns]:
    """The one `TreeEnsemble` of a graph and the columns that it reads. Raises `Refused`."""
    found = [node for node in graph.nodes if node.op_type.startswith("TreeEnsemble")]
    if len(found) != 1:
        raise Refused(f"expected one TreeEnsemble node, got {len(found)}")
    node = found[0]
    if node.op_type != "TreeEnsemble" or node.domain != "ai.onnx.ml":
        raise Refused(f"expected an ai.onnx.ml 5 TreeEnsemble, got {node.domain} {node.op_type}")
    columns = columns_of(graph, node, single=_is_single(node))
    return _from_attributes(node, len(columns.source)), columns


def _is_single(node: Node) -> bool:
    return getattr(node.attributes.get("nodes_splits"), "dtype", None) == np.float32


def _ints(node: Node, name: str, size: int | None = None) -> NDArray[Any]:
    value = node.attributes.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        raise Refused(f"TreeEnsemble.{name}: expected integers, got {value!r}")
    if size is not None and len(value) != size:
        raise Refused(f"TreeEnsemble.{name}: expected {size} values, got {len(value)}")
    return value


def _numbers(node: Node, name: str, size: int | None = None) -> NDArray[Any]:
    value = node.attributes.get(name)
    if not isinstance(value, np.ndarray):
        raise Refused(f"TreeEnsemble.{name} is missing")
    expected = np.float32 if _is_single(node) else np.float64
    if value.dtype != expected:
        raise Refused(f"TreeEnsemble.{name}: expected {np.dtype(expected)}, got {value.dtype}")
    if size is not None and value.size != size:
        raise Refused(f"TreeEnsemble.{name}: expected {size} values, got {value.size}")
    return value.reshape(-1).astype(np.float64, copy=False)


def _references(node: Node, side: str, n_nodes: int, n_leaves: int) -> NDArray[Any]:
    ids, leaf = _ints(node, f"nodes_{side}nodeids", n_nodes), _ints(node, f"nodes_{side}leafs", n_nodes) != 0
    limit = np.where(leaf, n_leaves, n_nodes)
    if ((ids < 0) | (ids >= limit)).any():
        raise Refused(f"TreeEnsemble.nodes_{side}nodeids: an index is out of range")
    return np.where(leaf, ~ids, ids).astype(np.int32)


def _from_attributes(node: Node, n_features: int) -> Ensemble:
    aggregate = node.attributes.get("aggregate_function", _SUM)
    if aggregate not in (_AVERAGE, _SUM):
        raise Refused(f"aggregate_function: expected SUM or AVERAGE, got {aggregate}")
    if node.attributes.get("post_transform", 0) != 0:
        raise Refused("post_transform: expected NONE; put the transform into the graph behind the ensemble")
    modes = node.attributes.get("nodes_modes")
    if not isinstance(modes, np.ndarray):
        raise Refused("TreeEnsemble.nodes_modes is missing")
    modes = modes.reshape(-1).astype(np.uint8)
    n_nodes = len(modes)
    if (modes > MEMBER).any():
        raise Refused(f"nodes_modes: unknown mode {int(modes.max())}")
    leaf_value = _numbers(node, "leaf_weights")
    leaf_target = _ints(node, "leaf_targetids", len(leaf_value))
    n_targets = int(node.attributes.get("n_targets", int(leaf_target.max(initial=0)) + 1))
    roots = _ints(node, "tree_roots")
    if not len(leaf_value) or not len(roots):
        raise Refused("an ensemble without trees")
    if (leaf_target < 0).any() or (leaf_target >= n_targets).any():
        raise Refused(f"leaf_targetids: expected 0..{n_targets - 1}")
    if (roots < 0).any() or (roots >= n_nodes).any():
        raise Refused(f"tree_roots: expected 0..{n_nodes - 1}")
    feature = _ints(node, "nodes_featureids", n_nodes)
    width = int(feature.max(initial=0)) + 1
    if (feature < 0).any():
        raise Refused("nodes_featureids: an index is negative")
    if n_features < width:
        raise Refused(f"nodes_featureids: the trees read feature {width - 1} of an input with {n_features}")
    splits = _numbers(node, "nodes_splits", n_nodes)
    tracks = np.zeros(n_nodes, bool)
    if len(node.attributes.get("nodes_missing_value_tracks_true", ())):
        tracks = _ints(node, "nodes_missing_value_tracks_true", n_nodes) != 0
    yes, no = (_references(node, side, n_nodes, len(leaf_value)) for side in ("true", "false"))
    swap = np.isin(modes, (GTE, GT, NEQ))
    yes, no = np.where(swap, no, yes), np.where(swap, yes, no)
    # NaN == t is false, so a swapped != never takes its true branch for NaN, whatever the attribute says: NaN != t holds
    nan_true = np.where(modes == NEQ, False, tracks ^ swap)
    numeric = modes <= GT
    if np.isnan(splits[modes != MEMBER]).any():
        raise Refused("nodes_splits: a threshold is NaN")
    threshold = floor32(splits)
    strict = (modes == LT) | (modes == GTE)
    below = np.nextafter(threshold, np.float32(-np.inf))
    threshold = np.where(strict & (threshold == splits), below, threshold)
    numeric &= ~(strict & (splits == -np.inf))  # nothing is below -inf: an empty set
    set_of, sets = _category_sets(node, modes, splits, feature, nan_true, ~numeric)
    return Ensemble(
        n_features=n_features,
        n_targets=n_targets,
        average=aggregate == _AVERAGE,
        single=_is_single(node),
        root=roots.astype(np.int32),
        feature=feature.astype(np.int32),
        nan_true=nan_true.astype(np.uint8),
        threshold=threshold.astype(np.float32),
        set=set_of,
        yes=yes.astype(np.int32),
        no=no.astype(np.int32),
        leaf_value=leaf_value,
        leaf_target=leaf_target.astype(np.int32),
        sets=sets,
        output=node.outputs[0],
    )


def _category_sets(node: Node, modes: NDArray[Any], splits: NDArray[Any], feature: NDArray[Any], nan_true: NDArray[Any],
                   is_set: NDArray[Any]) -> tuple[NDArray[Any], tuple[CategorySets, ...]]:  # fmt: skip
    """Numbers the distinct sets of each feature: (int32 (nodes,) number or -1, the sets)."""
    set_of = np.full(len(modes), -1, np.int32)
    if not is_set.any():
        return set_of, ()
    lists = iter(_member_lists(node, int((modes == MEMBER).sum())))
    nothing = splits[:0]
    distinct: dict[int, dict[tuple[bytes, bool], int]] = {}
    for i in np.flatnonzero(is_set).tolist():
        members = next(lists) if modes[i] == MEMBER else splits[i : i + 1] if modes[i] in (EQ, NEQ) else nothing
        numbers = distinct.setdefault(int(feature[i]), {})
        set_of[i] = numbers.setdefault((members.tobytes(), bool(nan_true[i])), len(numbers))
    return set_of, tuple(_bits_of(number, list(distinct[number])) for number in sorted(distinct))


def _bits_of(feature: int, keys: list[tuple[bytes, bool]]) -> CategorySets:
    """The bits of a feature's sets, each given by its float64 members and by whether NaN is one."""
    members = [np.frombuffer(raw, np.float64) for raw, _ in keys]
    number = np.repeat(np.arange(len(keys)), [len(m) for m in members])
    wide = np.concatenate(members)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    met = narrow == wide  # what no float32 equals is never met
    values, rank = np.unique(narrow[met] + np.float32(0), return_inverse=True)  # -0.0 is 0.0
    number = number[met]
    bits = np.zeros((len(values) + 2, (len(keys) + 7) // 8), np.uint8)
    np.bitwise_or.at(bits, (rank + 2, number // 8), (1 << number % 8).astype(np.uint8))
    for j in [j for j, (_, nan) in enumerate(keys) if nan]:
        bits[1, j // 8] |= np.uint8(1 << j % 8)
    return CategorySets(feature, values, bits, len(keys))


def _member_lists(node: Node, n_member_nodes: int) -> list[NDArray[Any]]:
    if not n_member_nodes:
        return []
    values = _numbers(node, "membership_values")
    ends = np.flatnonzero(np.isnan(values)).tolist()
    if not ends or ends[-1] != len(values) - 1:
        ends.append(len(values))  # a delimiter may also follow the last list
    lists = [values[start:end] for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]
    if len(lists) != n_member_nodes:
        raise Refused(f"membership_values: expected {n_member_nodes} lists, got {len(lists)}")
    return lists
