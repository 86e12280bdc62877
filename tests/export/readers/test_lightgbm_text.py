"""Model files of older releases, files edited by hand to hold what training rarely makes, and files that are broken."""

import re
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from saker.export.errors import BrokenModel, UnsupportedModel
from saker.export.proof.leaf_probe import open_session
from saker.export.proof.parity import check_parity
from saker.export.readers.ensemble import ZERO_BAND, effective_threshold
from saker.export.readers.lightgbm_text import parse_model_text
from saker.export.selfcheck.model_zoo import LABEL, SMALL, features, train, written

FILES = sorted((Path(__file__).parents[1] / "data").glob("*.txt"))


def test_there_are_files_of_five_releases() -> None:
    assert {path.name.split("_")[0] for path in FILES} == {"2.2.3", "3.0.0", "3.3.5", "4.0.0", "4.7.0"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_older_releases(path: Path) -> None:
    booster = lgb.Booster(model_file=path)
    report = check_parity(booster, written(booster), features()[:, [0, 1, 2, 4]])
    assert report.passed, report.table()
    assert report.margin_rows_identical == report.n_rows
    assert report.splits_unreachable == 0


def edited(booster: lgb.Booster, key: str, change: Any) -> lgb.Booster:
    """The booster with one line of its first tree changed: the line's numbers go through `change`."""
    head, mark, tail = booster.model_to_string().partition("Tree=0")
    line = re.search(rf"^{key}=(.*)$", tail, re.MULTILINE)
    assert line is not None
    numbers = " ".join(change(line[1].split(" ")))
    tail = tail[: line.start()] + f"{key}={numbers}" + tail[line.end() :]
    head = re.sub(r"^tree_sizes=.*\n", "", head, flags=re.MULTILINE)  # they are byte counts; LightGBM reads without them
    return lgb.Booster(model_str=head + mark + tail)


@pytest.mark.parametrize("name", ["missing_nan", "missing_none", "missing_zero"])
@pytest.mark.parametrize(
    "threshold",
    [ZERO_BAND, -ZERO_BAND, float(np.nextafter(ZERO_BAND, 1)), float(np.nextafter(-ZERO_BAND, -1)), 1e-36, -1e-36, 0.0, -0.0,
     1e-45, 1e300, -1e300, 3.4028234663852886e38, 3.5e38, 16777217.0],
)  # fmt: skip
def test_thresholds_near_zero_and_far_away(name: str, threshold: float, trained: Any) -> None:
    booster = edited(trained(name), "threshold", lambda numbers: [repr(threshold)] * len(numbers))
    assert set(parse_model_text(booster.model_to_string()).trees[0].threshold) == {
        float(effective_threshold(np.array(threshold)))
    }
    report = check_parity(booster, written(booster))
    assert report.passed, report.table()
    assert report.margin_rows_identical == report.n_rows


@pytest.mark.parametrize("decision", range(0, 12, 2))
def test_every_missing_type_and_direction(decision: int, trained: Any) -> None:
    """decision_type: bit 1 the default direction, bits 2 and 3 the missing type."""
    booster = edited(trained("missing_nan"), "decision_type", lambda numbers: [str(decision)] * len(numbers))
    report = check_parity(booster, written(booster))
    assert report.passed, report.table()


@pytest.mark.parametrize(
    ("decision", "threshold", "prepared"), [("6", "1", False), ("4", "1", True), ("6", "-1", True), ("4", "-1", False)]
)
def test_zero_is_prepared_only_where_it_changes_sides(decision: str, threshold: str, prepared: bool) -> None:
    """decision_type 4: missing type zero, goes right; 6: goes left."""
    booster = train({"objective": "regression", "zero_as_missing": True}, rounds=1)
    for key, value in (("decision_type", decision), ("threshold", threshold)):
        booster = edited(booster, key, lambda numbers, value=value: [value] * len(numbers))
    model = written(booster)
    assert ("LessOrEqual" in [node.op_type for node in model.graph.node]) == prepared
    assert check_parity(booster, model).passed


@pytest.mark.parametrize("words", ["0", "1", "4294967295", "2147483648"])
def test_category_sets_empty_and_full(words: str, trained: Any) -> None:
    booster = edited(trained("category_40"), "cat_threshold", lambda numbers: [words] * len(numbers))
    report = check_parity(booster, written(booster))
    assert report.passed, report.table()


def test_categories_beyond_the_whole_numbers_of_float32() -> None:
    """Beyond 2**24 float32 skips numbers; the set is still exact in float64."""
    booster = train(SMALL | {"num_leaves": 2}, x=features(n_categories=2)[:, 4:], y=LABEL, categorical=[0], rounds=1)
    text = booster.model_to_string()
    n_words = 2**24 // 32 + 2
    words = ["0"] * (n_words - 1) + ["5"]  # the categories 2**24 + 32 and 2**24 + 34
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^cat_boundaries=.*$", f"cat_boundaries=0 {n_words}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^cat_threshold=.*$", f"cat_threshold={' '.join(words)}", text, count=1, flags=re.MULTILINE)
    booster = lgb.Booster(model_str=text)
    rows = (2**24 + np.array([[30], [32], [34], [36], [64], [-32]])).astype(np.float32)
    raw = open_session(written(booster)).run(["raw"], {"features": rows})[0]
    np.testing.assert_array_equal(raw[:, 0], booster.predict(rows, raw_score=True))
    assert booster.predict(rows, pred_leaf=True).ravel().tolist() == [1, 0, 0, 1, 1, 1]


def test_effective_threshold() -> None:
    below = np.nextafter(-ZERO_BAND, -1)
    given = np.array([-1.0, below, -ZERO_BAND, -1e-40, -0.0, 0.0, 1e-40, ZERO_BAND, np.nextafter(ZERO_BAND, 1), 1.0])
    expected = np.array(
        [-1.0, below, below, below, ZERO_BAND, ZERO_BAND, ZERO_BAND, ZERO_BAND, np.nextafter(ZERO_BAND, 1), 1.0]
    )
    np.testing.assert_array_equal(effective_threshold(given), expected)


@pytest.mark.parametrize(
    ("pattern", "replacement", "what"),
    [
        (r"^version=.*$", "version=v1", "model format"),
        (r"^feature_names=.*$", "feature_names=a b", "feature names"),
        (r"^split_feature=\d+", "split_feature=99", "split_feature"),
        (r"^left_child=\S+", "left_child=7", "children"),
        (r"^left_child=.*$", "left_child=0 0", "left_child of tree 0"),
        (r"^threshold=\S+", "threshold=nan", "threshold of tree 0"),
        (r"^threshold=\S+", "threshold=x", "threshold of tree 0"),
        (r"^num_leaves=.*$", "num_leaves=0", "num_leaves"),
        (r"^num_leaves=.*\n", "", "num_leaves"),
        (r"^leaf_value=.*\n", "", "leaf_value"),
        (r"^decision_type=\d+", "decision_type=12", "decision_type"),
        (r"^is_linear=0$", "is_linear=1", "linear_tree"),
        (r"^num_tree_per_iteration=1$", "num_tree_per_iteration=5", "trees"),
        (r"^end of trees$", "", "model text"),
    ],
)
def test_broken_files_are_refused_by_name(pattern: str, replacement: str, what: str, trained: Any) -> None:
    text = trained("missing_nan").model_to_string()
    parse_model_text(text)
    broken, n = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert n == 1
    with pytest.raises((BrokenModel, UnsupportedModel)) as caught:
        parse_model_text(broken)
    assert caught.value.what == what


def test_broken_category_sets_are_refused_by_name(trained: Any) -> None:
    text = trained("category_only").model_to_string()
    broken = re.sub(r"^threshold=0", "threshold=4000", text, count=1, flags=re.MULTILINE)
    with pytest.raises(BrokenModel, match="category set: split 0 of tree 0 refers to set 4000"):
        parse_model_text(broken)


def test_a_loop_among_the_splits_is_refused(trained: Any) -> None:
    """Every split has one parent, but two of them are each other's: the root does not lead there."""
    text = trained("missing_nan").model_to_string()
    n_leaves = int(re.search(r"num_leaves=(\d+)", text)[1])  # type: ignore[index]
    left = ["-1", *(str(i) for i in range(2, n_leaves - 1)), "1"]
    right = ["-2", *(str(-i) for i in range(3, n_leaves + 1))]
    text = re.sub(r"^left_child=.*$", f"left_child={' '.join(left)}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^right_child=.*$", f"right_child={' '.join(right)}", text, count=1, flags=re.MULTILINE)
    with pytest.raises(BrokenModel, match="cannot be reached from the root"):
        parse_model_text(text)
