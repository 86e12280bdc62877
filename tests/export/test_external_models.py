"""Contracts for Boosters that saker did not train."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

import saker
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
