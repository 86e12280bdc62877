"""check_parity must find what is wrong: every test here damages a sound model in one place and asks for that place."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from onnx import helper as onnx_helper

from saker.engine.onnx_trees import floor32
from saker.export.errors import BrokenModel
from saker.export.onnx_writer.metadata import TENSORS, tree_attributes
from saker.export.proof.parity import check_parity
from saker.export.selfcheck.model_zoo import features, written


def damaged(model: ModelProto, attribute: str, change: Callable[[Any], Any]) -> ModelProto:
    """A copy with one attribute of the TreeEnsemble changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    node = next(node for node in copy.graph.node if node.op_type == "TreeEnsemble")
    position = next(i for i, a in enumerate(node.attribute) if a.name == attribute)
    value = change(np.array(tree_attributes(model)[attribute]))
    del node.attribute[position]
    node.attribute.append(
        onnx_helper.make_attribute(attribute, numpy_helper.from_array(value) if attribute in TENSORS else value.tolist())
    )
    return copy


def at(index: int, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values[index] = function(values[index])
        return values

    return change


def test_thresholds_rounded_to_nearest_float32(trained: Any) -> None:
    model = damaged(written(trained("binary")), "nodes_splits", lambda v: v.astype(np.float32).astype(np.float64))
    report = check_parity(trained("binary"), model)
    assert not report.passed
    assert report.margin_rows_off > 0
    assert report.leaf_rows_off > 0
    assert {fault.kind for fault in report.faults} == {"split"}


@pytest.mark.parametrize("direction", [-np.inf, np.inf])
@pytest.mark.parametrize("node", [0, 3, 20, 60])
def test_one_threshold_off_by_one_ulp(node: int, direction: float, trained: Any) -> None:
    """The ulp of float32: the smallest error that a float32 input can show. The report names the tree and the split."""
    model = written(trained("regression_l2"))
    roots = tree_attributes(model)["tree_roots"]
    tree = int(np.searchsorted(roots, node, "right")) - 1
    off = at(node, lambda threshold: np.nextafter(floor32(np.array([threshold]))[0], np.float32(direction)))
    report = check_parity(trained("regression_l2"), damaged(model, "nodes_splits", off))
    assert not report.passed
    assert {(fault.kind, fault.tree, fault.split) for fault in report.faults} == {("split", tree, node - int(roots[tree]))}
    assert str(report.faults[0].feature) in report.faults[0].detail


@pytest.mark.parametrize("name", ["missing_nan", "missing_none", "missing_zero"])
@pytest.mark.parametrize("node", [0, 11, 40])
def test_one_default_direction_turned_round(name: str, node: int, trained: Any) -> None:
    model = damaged(written(trained(name)), "nodes_missing_value_tracks_true", at(node, lambda bit: 1 - bit))
    report = check_parity(trained(name), model)
    assert not report.passed
    assert all(fault.value is not None and (np.isnan(fault.value) or abs(fault.value) < 1e-34) for fault in report.faults)


@pytest.mark.parametrize("node", range(0, 84, 9))
def test_a_split_that_no_row_through_the_whole_model_tries_is_tried_in_its_tree_alone(node: int, trained: Any) -> None:
    model = written(trained("regression_l2"))
    roots = tree_attributes(model)["tree_roots"]
    tree = int(np.searchsorted(roots, node, "right")) - 1
    off = at(node, lambda threshold: np.nextafter(floor32(np.array([threshold]))[0], np.float32(np.inf)))
    report = check_parity(trained("regression_l2"), damaged(model, "nodes_splits", off), max_rows=40)
    assert report.splits_alone > 70
    assert not report.passed
    assert {(fault.tree, fault.split) for fault in report.faults} == {(tree, node - int(roots[tree]))}


@pytest.mark.parametrize("name", ["missing_zero", "category_40", "multiclass", "forest_binary", "category_hundreds"])
def test_trees_cut_out_of_the_file_are_the_file_s(name: str, trained: Any) -> None:
    report = check_parity(trained(name), written(trained(name)), max_rows=40)
    assert report.splits_alone > 0
    assert report.tree_rows_off == report.splits_unreachable == 0
    assert report.passed


def test_a_leaf_that_no_row_reaches_is_compared_with_the_library_s(trained: Any) -> None:
    model = damaged(written(trained("regression_l2")), "leaf_weights", at(90, lambda v: v + 1e-9))
    report = check_parity(trained("regression_l2"), model, max_rows=1)
    assert report.leaf_values_off == 1
    assert not report.passed
    assert report.faults[-1].row is None


def test_one_category_exchanged(trained: Any) -> None:
    model = written(trained("category_40"))
    report = check_parity(trained("category_40"), damaged(model, "membership_values", at(0, lambda c: c + 500)))
    assert not report.passed
    assert {fault.kind for fault in report.faults} == {"split"}
    assert "Column_4 in {" in report.faults[0].detail


def test_one_leaf_value(trained: Any) -> None:
    model = damaged(written(trained("regression_l2")), "leaf_weights", at(9, lambda v: v * (1 + 1e-6)))
    report = check_parity(trained("regression_l2"), model)
    assert not report.passed
    assert report.leaf_rows_off == 0
    assert 0 < report.margin_rows_off < report.n_rows
    assert {(fault.kind, fault.tree) for fault in report.faults} == {("leaf", 1)}
    assert "tree 1, leaf 1 adds" in report.faults[0].detail


def test_a_margin_must_be_the_same_to_the_last_bit_on_one_thread(trained: Any) -> None:
    model = damaged(written(trained("regression_l2")), "leaf_weights", at(9, lambda v: v * (1 + 1e-13)))
    report = check_parity(trained("regression_l2"), model)
    assert not report.passed
    assert 0 < report.margin_max_absolute < 1e-12
    assert {fault.kind for fault in report.faults} == {"leaf"}
    # On several the order of the sum is anybody's, and what is compared is how far it may take the margin.
    on_two = check_parity(trained("regression_l2"), model, threads=2)
    assert on_two.margin_rows_off == 0
    assert on_two.leaf_values_off == 1


def test_another_score_with_the_same_margin(trained: Any) -> None:
    model = ModelProto()
    model.CopyFrom(written(trained("binary")))
    constant = next(c for c in model.graph.initializer if c.name == "minus_sigmoid")
    constant.CopyFrom(numpy_helper.from_array(np.float64(-1.001), "minus_sigmoid"))
    report = check_parity(trained("binary"), model)
    assert not report.passed
    assert report.margin_rows_off == 0
    assert {fault.kind for fault in report.faults} == {"score"}


def test_the_model_of_another_booster(trained: Any) -> None:
    report = check_parity(trained("binary"), written(trained("binary_unbalanced")))
    assert not report.passed
    assert report.decision_flips > 0


def test_flips_are_counted_at_the_given_threshold(trained: Any) -> None:
    shifted = damaged(written(trained("regression_l2")), "leaf_weights", at(0, lambda v: v + 10))
    assert check_parity(trained("regression_l2"), shifted, decision_threshold=5.0).decision_flips > 0
    assert check_parity(trained("regression_l2"), shifted, decision_threshold=500.0).decision_flips == 0


def test_a_file_of_somebody_else_is_refused(trained: Any) -> None:
    model = written(trained("binary"))
    del model.metadata_props[:]
    with pytest.raises(BrokenModel, match=r"saker\.export"):
        check_parity(trained("binary"), model)


def test_rows_of_another_width_are_refused(trained: Any) -> None:
    with pytest.raises(ValueError, match=r"expected the shape \(n, 5\), got \(3, 4\)"):
        check_parity(trained("binary"), written(trained("binary")), np.zeros((3, 4)))


def test_report_is_frozen_json_and_a_table(trained: Any) -> None:
    report = check_parity(trained("binary"), written(trained("binary")), features(), max_rows=500)
    with pytest.raises(FrozenInstanceError):
        report.splits = 0  # type: ignore[misc]
    data = json.loads(report.to_json())
    assert data["passed"] is True
    assert data["rows_given"] == 800
    assert 0 < data["splits_alone"] < data["splits"]
    assert data["splits_unreachable"] == data["tree_rows_off"] == 0
    assert f"{report.splits} of {report.splits} with targeted rows" in report.table()
    assert report.table().startswith("OK: LightGBM v4 binary, 12 trees, 1 output(s)")


def test_a_report_with_faults_is_json_too(trained: Any) -> None:
    flip = damaged(written(trained("missing_nan")), "nodes_missing_value_tracks_true", at(0, lambda bit: 1 - bit))
    data = json.loads(check_parity(trained("missing_nan"), flip).to_json())
    assert data["passed"] is False
    assert data["faults"][0]["kind"] == "split"
    assert all(isinstance(fault["value"], (float, str)) for fault in data["faults"])


def test_what_onnxmltools_makes_of_the_model_is_told_and_does_not_count(trained: Any) -> None:
    kind = trained("binary_sigmoid_2")
    report = check_parity(kind, written(kind), compare_onnxmltools=True)
    assert report.passed
    assert report.second_opinion is not None
    assert report.second_opinion.rows_off == report.rows_with_scores_compared
    assert json.loads(report.to_json())["second_opinion"]["converter"].startswith("onnxmltools 1.")
    assert f"compared   {report.second_opinion}" in report.table()


def test_the_same_seed_makes_the_same_rows(trained: Any) -> None:
    def numbers(seed: int) -> tuple[float, ...]:
        shifted = damaged(written(trained("regression_l2")), "leaf_weights", at(9, lambda v: v + 1))
        report = check_parity(trained("regression_l2"), shifted, seed=seed, max_rows=800)
        return report.margin_rows_off, report.margin_max_relative

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)
