"""Contracts for Boosters that saker did not train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pandas as pd
import pytest

import saker
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch
from saker.export import external_models
from saker.export.describe import template
from saker.export.selfcheck.model_zoo import LABEL, features, written

QUIET = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"amount": features()[:, 0], **columns})


def colours(ordered: bool = False) -> Any:
    codes = features()[:, 4].astype(int) % 3
    return pd.Categorical.from_codes(codes, ["red", "blue", "green"], ordered=ordered)


def trained_on(table: pd.DataFrame, **options: Any) -> lightgbm.Booster:
    return lightgbm.train(QUIET, lightgbm.Dataset(table, LABEL, **options), 10)


def test_pandas_categories_become_the_vocabulary() -> None:
    booster = trained_on(frame(colour=colours()))
    contract = saker.contract_for(booster, threshold=0.3, id_field="id")
    assert contract.features[1].vocabulary == ("red", "blue", "green")
    session = saker.open_session(saker.to_onnx(booster, contract).SerializeToString())
    assert session.contract.threshold == 0.3
    matrix = saker.Decoder(contract).decode([b'{"id":1,"amount":0.25,"colour":"green"}']).matrix
    row = pd.DataFrame({"amount": [0.25], "colour": pd.Categorical(["green"], ["red", "blue", "green"])})
    assert session.score(matrix)[0] == pytest.approx(booster.predict(row)[0], rel=1e-15)


def test_vocabularies_that_belong_to_no_known_feature_are_refused_with_what_to_pass() -> None:
    """An ordered pandas category is a number to LightGBM, and its vocabulary is kept like the others."""
    booster = trained_on(frame(size=colours(ordered=True), colour=colours()))
    with pytest.raises(saker.UnsupportedModel, match=r"has 2 pandas vocabularies .* pass vocabularies="):
        saker.contract_for(booster)
    vocabularies = {"colour": ["red", "blue", "green"], "size": ["red", "blue", "green"]}
    contract = saker.contract_for(booster, vocabularies=vocabularies)
    assert [feature.kind for feature in contract.features] == ["number", "category", "category"]
    saker.open_session(saker.to_onnx(booster, contract).SerializeToString())


def test_a_vocabulary_that_is_too_short_for_its_codes_is_refused() -> None:
    """The one vocabulary is the ordered column's; the one categorical feature has codes of its own."""
    table = frame(size=colours(ordered=True), code=features()[:, 4])
    booster = trained_on(table, categorical_feature=["code"])
    with pytest.raises(saker.UnsupportedModel, match="does not say which belongs to which"):
        saker.contract_for(booster)


def test_an_ordered_category_that_fits_as_well_as_a_feature_with_codes_of_its_own_is_refused() -> None:
    table = frame(size=colours(ordered=True), code=features()[:, 4].astype(int) % 3)
    booster = trained_on(table, categorical_feature=["code"])
    with pytest.raises(saker.UnsupportedModel, match=r"categorical features \(code\), and size may be ordered categories"):
        saker.contract_for(booster)
    contract = saker.contract_for(booster, vocabularies={})
    assert [feature.kind for feature in contract.features] == ["number"] * 3


def test_whole_numbers_that_are_no_code_of_a_vocabulary_do_not_matter() -> None:
    table = frame(count=features()[:, 4].astype(int) % 5, flag=features()[:, 4].astype(int) % 2, colour=colours())
    assert saker.contract_for(trained_on(table)).features[3].vocabulary == ("red", "blue", "green")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([4829, 5411, 5812], ["4829", "5411", "5812"]),
        ([-1, 0, 100], ["-1", "0", "100"]),
        ([4829.0, 5411.0, 5812.0], ["4829", "5411", "5812"]),
        ([0.5, 1.5, 2.25], ["0.5", "1.5", "2.25"]),
        ([False, True], ["false", "true"]),
        (["NA", "", "null"], ["NA", "", "null"]),
    ],
)
@pytest.mark.parametrize("saved", [False, True])
def test_whatever_pandas_called_a_category_a_record_calls_it(values: list[Any], texts: list[str], saved: bool) -> None:
    """Merchant codes are numbers: the oracle is the library's answer for the frame, not for codes."""
    column = pd.Categorical(np.array(values)[features()[:, 4].astype(int) % len(values)], values)
    booster = trained_on(frame(code=column))
    if saved:
        booster = lightgbm.Booster(model_str=booster.model_to_string())
    proven = saker.export_proven(booster, saker.contract_for(booster))
    assert proven.session.contract.features[1].vocabulary == tuple(texts)
    table = pd.DataFrame({"amount": np.full(len(values), 0.25, np.float32), "code": pd.Categorical(values, values)})
    records = [orjson.dumps({"TransactionID": 1, "amount": 0.25, "code": value}) for value in values]
    np.testing.assert_allclose(
        proven.session.score(saker.Decoder(proven.session.contract).decode(records).matrix),
        booster.predict(table),
        rtol=1e-15,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "number", "vocabulary": ()}, "kind is number: write kind = .category. and, as its vocabulary"),
        ({"vocabulary": ()}, "its vocabulary has 0 values"),
        ({"vocabulary": ("4829", "5411")}, "its vocabulary has 2 values"),
        ({"vocabulary": ("5812", "5411", "4829")}, "its vocabulary has the values in another order"),
    ],
)
def test_a_features_file_that_says_otherwise_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    column = pd.Categorical(np.array([4829, 5411, 5812])[features()[:, 4].astype(int) % 3])
    trained_on(frame(mcc=column)).save_model(tmp_path / "m.txt")
    contract, _ = template(tmp_path / "m.txt")
    assert contract.features[1].vocabulary == ("4829", "5411", "5812")
    assert external_models.export_file(tmp_path / "m.txt", contract).report.passed
    wrong = replace(contract, features=(contract.features[0], replace(contract.features[1], **changes)))
    with pytest.raises(saker.UnsupportedModel, match=message):
        external_models.export_file(tmp_path / "m.txt", wrong)


def test_what_is_described_of_ambiguous_categories_has_to_be_completed(tmp_path: Path) -> None:
    trained_on(frame(size=colours(ordered=True), colour=colours())).save_model(tmp_path / "m.txt")
    contract, notes = template(tmp_path / "m.txt")
    assert (contract.features[2].kind, contract.features[2].vocabulary) == ("category", ())
    assert any("red" in note for note in notes)
    with pytest.raises(saker.UnsupportedModel, match=r"'colour' is categorical .* its vocabulary has 0 values"):
        external_models.export_file(tmp_path / "m.txt", contract)


def test_categories_that_are_one_in_a_record_are_refused() -> None:
    column = pd.Categorical.from_codes(features()[:, 4].astype(int) % 2, pd.Index([1, "1"], dtype=object))
    with pytest.raises(saker.UnsupportedModel, match="two categories are 1 in a record"):
        saker.contract_for(trained_on(frame(code=column)))


def test_fields_required_features_and_the_output_are_said_as_in_a_features_file(trained: Any) -> None:
    booster = trained("multiclass")
    names = booster.feature_name()
    contract = saker.contract_for(booster, column=1, sources={names[0]: "card.amount"}, required=[names[0]])
    assert (contract.features[0].field, contract.features[0].required) == ("card.amount", True)
    proven = saker.export_proven(booster, contract)
    assert proven.session.proven
    rows = features()
    np.testing.assert_allclose(proven.session.score(rows), booster.predict(rows)[:, 1], rtol=1e-15)
    record = orjson.dumps({"TransactionID": 1, "card.amount": 0.5})
    for kernels in ("auto", "off"):
        active = ActiveModel.of(saker.open_session(proven.data, kernels), "fraud/1", "", kernels)
        result, *others = score_batch(active, [record] * 3).results
        assert len(others) == 2
        row = np.full((1, len(names)), np.nan, np.float32)
        row[0, 0] = 0.5
        assert orjson.loads(result)["fraud_score"] == pytest.approx(booster.predict(row)[0, 1], rel=1e-15)
    for wrong, what in (({"column": 3}, "column"), ({"sources": {"x": "y"}}, "sources"), ({"required": ["x"]}, "required")):
        with pytest.raises(saker.UnsupportedModel, match=what):
            saker.contract_for(booster, **wrong)


@pytest.mark.parametrize("of_category", [False, True])
def test_the_identifier_may_be_a_feature(of_category: bool) -> None:
    booster = trained_on(frame(colour=colours()))
    proven = saker.export_proven(booster, saker.contract_for(booster, id_field="colour" if of_category else "amount"))
    assert len(proven.session.contract.golden) == 8


def test_features_of_one_field_that_no_record_can_be_are_refused() -> None:
    booster = trained_on(frame(colour=colours()))
    assert saker.export_proven(booster, saker.contract_for(booster, sources={"colour": "x", "amount": "y"})).session.proven
    with pytest.raises(saker.UnsupportedModel, match=r"no record fits all of them: field 'x'"):
        saker.contract_for(booster, sources={"colour": "x", "amount": "x"}, required=["colour"])


def test_a_vocabulary_for_a_feature_that_is_not_there_is_named() -> None:
    with pytest.raises(saker.UnsupportedModel, match="no feature shade; it has amount, colour"):
        saker.contract_for(trained_on(frame(colour=colours())), vocabularies={"shade": ["dark"]})


def test_a_contract_of_another_width_is_refused(trained: Any) -> None:
    contract = saker.contract_for(trained("binary"))
    with pytest.raises(saker.UnsupportedModel, match="has 5 features, the contract describes 4"):
        saker.to_onnx(trained("binary"), saker.Contract(contract.features[:4]))


@pytest.mark.parametrize(
    "name", ["binary", "cross_entropy", "regression_l2", "regression_poisson", "forest_binary", "custom_objective"]
)
def test_one_score_a_record_can_be_served(name: str, trained: Any) -> None:
    session = saker.open_session(written(trained(name)).SerializeToString())
    np.testing.assert_allclose(session.score(features()), trained(name).predict(features()), rtol=1e-15)


def test_several_scores_a_record_are_refused_by_the_engine_by_name(trained: Any) -> None:
    with pytest.raises(
        saker.engine.errors.ModelRefused, match=r"output score has 3 columns, and the contract does not say which"
    ):
        saker.open_session(written(trained("multiclass")).SerializeToString())
