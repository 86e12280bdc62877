"""Contracts for files that saker did not export: the features file, and the model that is served with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import skl2onnx
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

import saker
from saker.engine.contract import Contract, Feature
from saker.engine.errors import ModelRefused, SakerError
from saker.engine.kernels import native
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch
from saker.export import describe, external_models, features_file
from saker.export.external_models import export_file
from saker.export.proof.onnxmltools_check import onnxmltools_model
from saker.export.proven_export import export_proven
from saker.export.selfcheck.model_zoo import LABEL, features, written

HERE = Path(__file__).parent


@pytest.fixture
def logistic(tmp_path: Path) -> tuple[Any, Path]:
    rows = np.nan_to_num(features())
    fitted = LogisticRegression(max_iter=500).fit(rows, LABEL > 0.5)
    path = tmp_path / "logistic.onnx"
    path.write_bytes(skl2onnx.to_onnx(fitted, rows[:1], options={"zipmap": False}).SerializeToString())
    return fitted, path


def template(path: Path, folder: Path, *edits: tuple[str, str]) -> Contract:
    """The features file that is printed for a model, edited as a user would, and read again."""
    text = features_file.write_features(*describe.template(path))
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / "features.toml").write_text(text)
    return features_file.read_features(folder / "features.toml")


def test_a_model_of_other_origin_is_served_without_the_proof_and_says_so(logistic: tuple[Any, Path], tmp_path: Path) -> None:
    fitted, path = logistic
    contract = template(path, tmp_path, ("TransactionID", "id"), ('"f0"', '"amount"'))
    session = describe.describe(path, contract)
    assert (contract.output, contract.column) == ("probabilities", 1)
    assert not session.proven
    rows = np.nan_to_num(features())
    np.testing.assert_allclose(session.score(rows), fitted.predict_proba(rows)[:, 1], atol=1e-6)

    model = ActiveModel.load(path, "logistic/1")
    batch = score_batch(model, [b'{"id":1,"amount":0.5,"f1":1,"f2":1,"f3":1,"f4":1}', b'{"id":2,"amount":0.5}'])
    assert batch.indices == [0]
    assert [(r.index, r.reason) for r in batch.rejections] == [(1, "not_finite")]
    assert "expected a finite score, got nan" in batch.rejections[0].message


def test_trees_that_another_converter_wrote_are_scored_natively(trained: Any, tmp_path: Path) -> None:
    """And by one native call in a worker, whichever of the two columns is the score."""
    path = tmp_path / "converted.onnx"
    path.write_bytes(onnxmltools_model(trained("binary"), features().shape[1]).SerializeToString())
    session = describe.describe(path, template(path, tmp_path))
    assert (session.contract.output, session.contract.column, session.proven) == ("probabilities", 1, False)
    extension, _ = native("auto")
    assert extension
    assert (session.backend, session.backend_reason) == (extension.variants()[0], "")
    assert session.plan_and_program is not None
    other = saker.open_session(path, "off")
    assert other.backend == "onnxruntime"
    np.testing.assert_array_equal(session.score(features()), other.score(features()))


def test_its_contract_can_be_read_changed_and_written_again(logistic: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = logistic
    describe.describe(path, template(path, tmp_path))
    session = describe.describe(path, template(path, tmp_path, ("threshold = 0.5", "threshold = 0.25")))
    assert session.contract.threshold == 0.25
    assert len(session.contract.golden) == 8


def test_another_runtime_that_answers_otherwise_is_noticed(logistic: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = logistic
    describe.describe(path, template(path, tmp_path))
    data = path.read_bytes()
    with pytest.raises(ModelRefused, match=r"golden record \d must score"):
        saker.open_session(_other_intercept(data))


def _other_intercept(data: bytes) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    attribute = next(a for node in model.graph.node for a in node.attribute if a.name == "intercepts")
    attribute.floats[:] = [value * 1.01 + 0.01 for value in attribute.floats]
    return bytes(model.SerializeToString())


def test_what_has_to_be_said_about_a_file_is_said(logistic: tuple[Any, Path], tmp_path: Path, trained: Any) -> None:
    _, path = logistic
    before = path.read_bytes()
    with pytest.raises(saker.UnsupportedModel, match=r"has 5 columns, the features file 1"):
        describe.describe(path, Contract((Feature("a"),)))
    five = tuple(Feature(name) for name in "abcde")
    with pytest.raises(ModelRefused, match="probabilities has 2 columns, and the contract does not say which"):
        describe.describe(path, Contract(five, output="probabilities"))
    with pytest.raises(ModelRefused, match="has 2 columns, the contract says column 2"):
        describe.describe(path, Contract(five, output="probabilities", column=2))
    with pytest.raises(ModelRefused, match="expected an output score, numbers"):
        describe.describe(path, Contract(five))
    assert path.read_bytes() == before

    path.write_bytes(written(trained("binary")).SerializeToString())
    session = export_proven(trained("binary"), saker.contract_for(trained("binary")))
    path.write_bytes(session.data)
    with pytest.raises(saker.UnsupportedModel, match="exported and proven with its contract"):
        describe.describe(path, Contract(five))
    with pytest.raises(saker.BrokenModel, match="no such file"):
        describe.template(tmp_path / "none.onnx")


@pytest.mark.parametrize("labels", [[False, True], ["no", "yes"], [3, 7]])
def test_the_tensor_before_a_zipmap_is_the_score(labels: list[Any], tmp_path: Path) -> None:
    rows = np.nan_to_num(features())
    fitted = LogisticRegression(max_iter=500).fit(rows, np.array(labels)[(LABEL > 0.5).astype(int)])
    model = skl2onnx.to_onnx(fitted, rows[:1])
    assert "ZipMap" in {node.op_type for node in model.graph.node}
    path = tmp_path / "z.onnx"
    path.write_bytes(model.SerializeToString())
    contract = template(path, tmp_path)
    assert contract.column == 1
    session = describe.describe(path, contract)
    np.testing.assert_allclose(session.score(rows), fitted.predict_proba(rows)[:, 1], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 32])
def test_a_model_of_one_batch_size_is_refused_by_name(batch: int, logistic: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = logistic
    contract = template(path, tmp_path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, path)
    with pytest.raises(ModelRefused, match=f"its input takes a batch of {batch} and no other"):
        describe.describe(path, contract)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two", values[:2], values[2:])
    path = tmp_path / "two.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(saker.UnsupportedModel, match=r"expected one float32 input \(n, f\), got a \[n, 2\], b \[n, 2\]"):
        describe.template(path)


def test_a_booster_with_several_outputs_serves_the_column_that_its_features_file_names(trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    trained("multiclass").save_model(path)
    with pytest.raises(saker.UnsupportedModel, match=r"has 3 outputs, and an engine serves one: run `saker models describe"):
        external_models.export_file(path, None)
    proven = external_models.export_file(path, template(path, tmp_path, ("threshold", "column = 2\nthreshold")), threshold=0.7)
    assert proven.session.contract.threshold == 0.7
    expected = lightgbm.Booster(model_file=path).predict(features())[:, 2]
    np.testing.assert_allclose(proven.session.score(features()), expected, rtol=1e-15)


def test_features_of_other_names_are_refused_for_a_booster(trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    trained("binary").save_model(path)
    with pytest.raises(saker.UnsupportedModel, match="in its order: Column_1, got amount"):
        external_models.export_file(path, template(path, tmp_path, ("Column_1", "amount")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threshold = ", "Invalid value"),
        ("", r"expected a \[\[features\]\] for each column"),
        ("limit = 1", "the file has 'limit', expected one of id_field, id_path, threshold"),
        ("threshold = true", "threshold is True"),
        ('score = "odds"\n[[features]]\nname = "a"', "score must be one of probability, value"),
        ("[[features]]\nrequired = true", "feature 1 has no name"),
        ('[[features]]\nname = "a"\nkinds = "category"', "feature 1 has 'kinds'"),
        ('[[features]]\nname = "a"\nvocabulary = [1.5]', "feature 1: the vocabulary must hold strings or whole numbers"),
        ("[[features]]\nname = 7", "feature 1: name is 7"),
        ("features = [1]", "feature 1: expected a table"),
    ],
)
def test_a_features_file_that_says_something_else_is_refused_with_the_place(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "features.toml"
    path.write_text(text)
    with pytest.raises(saker.BrokenModel, match=message):
        features_file.read_features(path)


def test_a_contract_comes_back_from_its_features_file(tmp_path: Path) -> None:
    contract = Contract(
        (
            Feature("amount", required=True),
            Feature('ca"rd\n', "category", vocabulary=("é", "\x7f", "\\")),
            Feature("hour", "derived", source="time", derivation="hour_of_day"),
        ),
        id_field="id",
        threshold=1.5,
        score="value",
        output="y",
        column=3,
    )
    path = tmp_path / "features.toml"
    path.write_text(features_file.write_features(contract, ["a note"]))
    assert features_file.read_features(path) == contract


VELOCITY = """
id_field = "id"

[event_time]
path = "at"
unit = "ms"

[[features]]
name = "amount"

[[features]]
name = "spend_1h"
kind = "velocity"
by = ["card.token", "country"]
of = "amount"
function = "sum"
window = "60m"
scale = 2

[[features]]
name = "shops_1d"
kind = "velocity"
by = "card.token"
of = "shop"
function = "distinct"
window = "1d"
"""


def test_velocity_features_are_placed_among_the_columns(tmp_path: Path) -> None:
    """Of a model that saker did not train; the exported file proves them by golden records with their histories."""
    rows = np.random.default_rng(3).uniform(0, 5, size=(500, 3))
    data = lightgbm.Dataset(rows, rows[:, 1] + rows[:, 2] > 4, feature_name=["amount", "spend_1h", "shops_1d"])
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 10)
    booster.save_model(tmp_path / "model.txt")
    (tmp_path / "features.toml").write_text(VELOCITY)
    contract = features_file.read_features(tmp_path / "features.toml")
    proven = export_file(tmp_path / "model.txt", contract)
    assert any(golden.history for golden in proven.session.contract.golden)
    (tmp_path / "model.onnx").write_bytes(proven.data)
    printed = features_file.write_features(*describe.template(tmp_path / "model.onnx"))
    (tmp_path / "again.toml").write_text(printed)
    again = features_file.read_features(tmp_path / "again.toml")
    assert again.features == contract.features
    assert again.event_time == contract.event_time
    assert again.definition == contract.definition
    assert 'window = "1h"' in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("window", "windows"), "feature 2 has 'windows'"),
        (('unit = "ms"', 'unit = "days"'), "unit of the event time is 'days'"),
        (('path = "at"\n', ""), "event_time has no path"),
        (('function = "distinct"', 'function = "count"'), "count takes no `of`"),
        (('by = "card.token"\nof = "shop"', 'of = "shop"'), "feature 3 has no by"),
        (('window = "1d"', 'window = "1d"\nrequired = true'), "feature 3 has 'required'"),
    ],
)
def test_a_wrong_velocity_feature_is_named(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "features.toml").write_text(VELOCITY.replace(*change, 1))
    with pytest.raises(SakerError, match=re.escape(message)):
        features_file.read_features(tmp_path / "features.toml")
