"""Every kind of model, on rows repeatedst it: onnxruntime must say what `Booster.predict` says of the same float32 values."""

from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

from saker.export.errors import BrokenModel, UnsupportedModel
from saker.export.onnx_writer.metadata import read_contract, read_facts, read_training_rows, tree_attributes
from saker.export.proof.adversarial_rows import adversarial_rows
from saker.export.proof.leaf_probe import open_session
from saker.export.proof.parity import check_parity
from saker.export.readers.ensemble import MISSING_NAN, MISSING_NONE, MISSING_ZERO
from saker.export.readers.lightgbm_model import read_booster
from saker.export.selfcheck.model_zoo import CLASS, KINDS, LABEL, features, rows_like_training, target, train, written


def booster_of(model: Any) -> lgb.Booster:
    return getattr(model, "booster_", model)


@pytest.mark.parametrize("name", KINDS)
def test_scores_and_margins_are_lightgbms(name: str, trained: Any) -> None:
    # The comparison is written out here, without check_parity: the proof must not only be checked by itself.
    booster = booster_of(trained(name))
    exported = written(trained(name))
    made = adversarial_rows(read_booster(booster), max_rows=6000)
    x = rows_like_training(name, seed=4)
    rows = np.concatenate([made.rows, x, np.zeros_like(x[:1]), np.full_like(x[:1], np.nan)])
    score, raw = open_session(exported).run(["score", "raw"], {"features": rows})

    expected = np.asarray(booster.predict(rows, raw_score=True))
    assert raw.dtype == score.dtype == np.float64
    np.testing.assert_array_equal(raw, expected.reshape(len(rows), -1))
    np.testing.assert_allclose(score, booster.predict(rows), rtol=1e-12, atol=0)
    assert score.shape == booster.predict(rows).shape


def test_the_kinds_are_what_they_say(trained: Any) -> None:
    """A kind whose behaviour never shows up in its trees would pass for nothing."""

    def sets(name: str) -> list[int]:
        return [len(members) for tree in read_booster(trained(name)).trees for members in tree.categories.values()]

    def missing(name: str) -> set[tuple[int, bool]]:
        trees = [tree for tree in read_booster(trained(name)).trees if tree.n_splits]
        return {(int(m), bool(d)) for t in trees for m, d in zip(t.missing, t.default_left, strict=True)}

    assert set(sets("category_2")) == {1}
    assert set(sets("category_few_one_hot")) == {1}
    assert max(sets("category_40")) > 10
    assert max(sets("category_hundreds")) > 100
    assert (
        max(members.max() for t in read_booster(trained("category_large_numbers")).trees for members in t.categories.values())
        > 2**16
    )
    assert all(t.categorical.all() for t in read_booster(trained("category_only")).trees)
    assert {m for m, _ in missing("missing_none")} == {MISSING_NONE}
    assert missing("missing_zero") == {(MISSING_ZERO, False), (MISSING_ZERO, True)}
    assert missing("missing_nan") >= {(MISSING_NAN, False), (MISSING_NAN, True)}
    assert {m for m, _ in missing("continued_zero_then_nan")} >= {MISSING_ZERO, MISSING_NAN}
    assert {t.n_splits for t in read_booster(trained("single_leaf")).trees} == {0}
    assert {t.n_splits for t in read_booster(trained("single_leaf_beside_categories")).trees} >= {0, 4}
    assert {t.n_splits for t in read_booster(trained("stumps")).trees} == {1}
    assert all(read_booster(trained(name)).averaged for name in KINDS if name.startswith("forest_"))
    assert read_booster(trained("regression_square_root")).square_root
    assert len(KINDS) >= 60


@pytest.mark.parametrize(
    "params",
    [{"objective": name} for name in ("binary", "cross_entropy", "cross_entropy_lambda", "poisson", "regression")]
    + [{"objective": "binary", "sigmoid": 3.0}, {"objective": "regression", "reg_sqrt": True}]
    + [{"objective": name, "num_class": 3} for name in ("multiclass", "multiclassova")],
    ids=str,
)
def test_scores_of_very_small_and_very_large_margins(params: dict[str, Any]) -> None:
    """Relative precision where the score is nearly nothing, and LightGBM's own overflow where it is too much."""
    booster = train(params, rounds=1, y=CLASS if "num_class" in params else LABEL)
    margins = [-800.0, -710.0, -45.0, -36.0, -17.0, 0.0, 30.0, 750.0]
    for leaf, margin in enumerate(margins[: read_booster(booster).trees[0].n_leaves]):
        booster.set_leaf_output(0, leaf, margin)
    rows = adversarial_rows(read_booster(booster), max_rows=2000).rows
    score, raw = open_session(written(booster)).run(["score", "raw"], {"features": rows})
    assert set(margins) <= set(raw[:, 0].tolist())
    np.testing.assert_allclose(score, booster.predict(rows), rtol=1e-12, atol=0)
    assert check_parity(booster, written(booster)).passed


@pytest.mark.parametrize("name", KINDS)
def test_parity_report_agrees(name: str, trained: Any) -> None:
    report = check_parity(trained(name), written(trained(name)), rows_like_training(name, seed=4), max_rows=1500)
    assert report.passed, report.table()
    assert report.splits_unreachable == 0
    assert report.margin_rows_identical == report.n_rows


@pytest.mark.parametrize("name", KINDS)
def test_onnxruntime_has_nothing_to_warn_about(name: str, trained: Any, capfd: pytest.CaptureFixture[str]) -> None:
    exported = written(trained(name))
    onnx.checker.check_model(exported, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 0  # VERBOSE: prove that the log is read, then look for warnings in it
    session = onnxruntime.InferenceSession(exported.SerializeToString(), options)
    session.run(None, {"features": rows_like_training(name, seed=4)[:3]})
    log = capfd.readouterr().err
    assert "[V:onnxruntime" in log
    assert "[W:onnxruntime" not in log
    assert "[E:onnxruntime" not in log


@pytest.mark.parametrize("n_rows", [0, 1, 2, 49, 129])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["binary", "multiclass", "category_40", "missing_zero"])
def test_any_batch_and_thread_count(name: str, n_rows: int, threads: int, trained: Any) -> None:
    x = features(seed=6)[:n_rows]
    score, raw = open_session(written(trained(name)), threads).run(["score", "raw"], {"features": x})
    if n_rows == 0:
        assert len(score) == len(raw) == 0
    else:
        np.testing.assert_allclose(score, trained(name).predict(x), rtol=1e-12)
        assert raw.shape[0] == n_rows


@pytest.mark.parametrize("iterations", [1, 5, 12])
@pytest.mark.parametrize("name", ["binary", "multiclass", "forest_binary", "dart", "sklearn_classifier"])
def test_iteration_limit(name: str, iterations: int, trained: Any) -> None:
    booster = booster_of(trained(name))
    exported = written(trained(name), iterations)
    expected = booster.predict(features(seed=6), num_iteration=iterations)
    score = open_session(exported).run(["score"], {"features": features(seed=6)})[0]
    np.testing.assert_allclose(score, expected, rtol=1e-12)
    assert read_facts(exported).iterations == iterations
    assert check_parity(trained(name), exported, max_rows=300).passed


def test_early_stopping_takes_the_best_iteration(trained: Any) -> None:
    booster = trained("early_stopping")
    assert 0 < booster.best_iteration < booster.current_iteration()
    assert read_facts(written(booster)).iterations == booster.best_iteration
    assert read_facts(written(booster, iterations=booster.current_iteration())).iterations == booster.current_iteration()


@pytest.mark.parametrize("iterations", [0, -1, 13])
def test_iterations_that_are_not_there(iterations: int, trained: Any) -> None:
    with pytest.raises(ValueError, match=rf"expected 1\.\.12, got {iterations}"):
        written(trained("binary"), iterations=iterations)


@pytest.mark.parametrize("name", ["binary", "category_hundreds", "forest_multiclass", "missing_zero", "custom_objective"])
def test_a_saved_model_gives_the_same_file(name: str, trained: Any, tmp_path: Any) -> None:
    trained(name).save_model(tmp_path / "model.txt")
    assert written(lgb.Booster(model_file=tmp_path / "model.txt")).graph == written(trained(name)).graph


def test_the_booster_is_not_changed(trained: Any) -> None:
    before = trained("binary").model_to_string()
    written(trained("binary"))
    assert trained("binary").model_to_string() == before


def test_linear_trees_are_refused_by_name() -> None:
    x = np.nan_to_num(features())
    booster = train({"objective": "l2", "linear_tree": True}, x=x, y=target(x))
    with pytest.raises(UnsupportedModel, match="linear_tree: tree 0 has linear models in its leaves") as caught:
        written(booster)
    assert caught.value.what == "linear_tree"


def test_a_model_without_trees_is_refused_by_name() -> None:
    booster = lgb.Booster({"objective": "binary", "verbose": -1}, lgb.Dataset(features(), LABEL))
    with pytest.raises(UnsupportedModel, match="no trees"):
        written(booster)


def test_a_custom_objective_says_so(trained: Any) -> None:
    model = written(trained("custom_objective"))
    assert read_facts(model).objective == "custom"
    assert read_contract(model).score == "margin"


def test_facts(trained: Any) -> None:
    facts = read_facts(written(trained("binary_sigmoid_2")))
    assert facts.source == "LightGBM v4"
    assert (facts.objective, facts.sigmoid, facts.averaged) == ("binary", 2.0, False)
    assert (facts.iterations, facts.n_trees) == (12, 12)


def test_a_sigmoid_of_many_digits_is_that_of_the_booster(trained: Any) -> None:
    # The text keeps six digits: what was read back from text computes with those, what was not has them all.
    assert read_facts(written(trained("binary_sigmoid_many_digits"))).sigmoid == 0.123457
    assert read_facts(written(trained("binary_never_saved"))).sigmoid == 0.123456789


@pytest.mark.parametrize("name", ["binary", "single_leaf", "category_40", "multiclass"])
def test_training_rows_of_every_node_and_leaf(name: str, trained: Any) -> None:
    exported = written(trained(name))
    node_rows, leaf_rows = read_training_rows(exported)
    attributes = tree_attributes(exported)
    assert len(node_rows) == len(attributes["nodes_featureids"])
    assert len(leaf_rows) == len(attributes["leaf_weights"])
    for side in ("true", "false"):
        assert set(attributes[f"nodes_{side}leafs"]) <= {0, 1}
    below = sum(
        np.where(
            attributes[f"nodes_{side}leafs"],
            *(rows[np.minimum(child, len(rows) - 1)] for rows in (leaf_rows, node_rows)),
        )
        for side in ("true", "false")
        for child in [attributes[f"nodes_{side}nodeids"]]
    )
    np.testing.assert_array_equal(below, node_rows)
    np.testing.assert_array_equal(node_rows[attributes["tree_roots"]], 800)


def test_minimal_graph(trained: Any) -> None:
    def operators(name: str) -> list[str]:
        return [node.op_type for node in written(trained(name)).graph.node]

    assert operators("regression_l2") == ["Cast", "TreeEnsemble", "Squeeze"]
    assert operators("binary") == ["Cast", "TreeEnsemble", "Mul", "Exp", "Add", "Reciprocal", "Squeeze"]
    assert operators("missing_zero") == ["Abs", "LessOrEqual", "Where", "Cast", "TreeEnsemble", "Squeeze"]
    assert operators("category_40")[:6] == ["Abs", "Floor", "Sign", "Mul", "Where", "Cast"]
    assert operators("continued_number_then_category")[:2] == ["Gather", "Concat"]


@pytest.mark.parametrize(
    "name",
    [
        "binary",
        "missing_none",
        "missing_zero",
        "multiclass",
        "forest_multiclass",
        "cross_entropy_lambda",
        "single_leaf",
    ],
)
def test_the_specification_says_the_same(name: str, trained: Any) -> None:
    """The file means what it says, whatever the runtime: onnx's own evaluator, written from the specification.

    Without categories: it ends a set at the member 0 and reads the sets in another order than the specification says.
    """
    rows = adversarial_rows(read_booster(trained(name)), max_rows=2000).rows
    rows = rows[np.linspace(0, len(rows) - 1, 60).astype(int)]
    with np.errstate(invalid="ignore"):
        score, raw = onnx.reference.ReferenceEvaluator(written(trained(name))).run(["score", "raw"], {"features": rows})
    np.testing.assert_array_equal(raw, trained(name).predict(rows, raw_score=True).reshape(raw.shape))
    np.testing.assert_allclose(score, trained(name).predict(rows), rtol=1e-12)


def test_a_broken_text_is_refused_by_name(trained: Any) -> None:
    class Text:
        pandas_categorical = None
        best_iteration = -1
        params: dict[str, Any] = {}  # noqa: RUF012

        def __init__(self, text: str) -> None:
            self.text = text

        def current_iteration(self) -> int:
            return 12

        def model_to_string(self, **_: Any) -> str:
            return self.text

    text = trained("category_40").model_to_string()
    with pytest.raises(BrokenModel, match="truncated"):
        written(Text(text[: len(text) // 4]))
    with pytest.raises(UnsupportedModel, match="model format: expected version v2 or v3 or v4, got 'v1'"):
        written(Text(text.replace("version=v4", "version=v1")))
    with pytest.raises(UnsupportedModel, match="objective: 'made_up' is not one of binary"):
        written(Text(text.replace("objective=regression", "objective=made_up")))
