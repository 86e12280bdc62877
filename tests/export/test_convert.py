from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest

import engine
import export
from export.rows import floor32

ROWS = 3_000


def data(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(ROWS, 8)).astype(np.float32)
    x[:, 0] = random.integers(0, 40, ROWS)
    x[:, 1] = random.integers(0, 6, ROWS)
    x[random.random(x.shape) < 0.2] = np.nan
    x[:, 6] = random.normal(size=ROWS) * 1e-35  # around LightGBM's zero
    x[:, 7] = np.abs(np.nan_to_num(x[:, 7]))  # never missing
    signal = np.nan_to_num(x[:, 2]) + np.sin(np.nan_to_num(x[:, 0])) + 0.5e35 * x[:, 6] + random.normal(size=ROWS) / 2
    return x, (signal > 0.5).astype(int)


def booster(parameters: dict[str, Any], categorical: tuple[int, ...] = (0, 1), rounds: int = 20) -> Any:
    x, y = data()
    common = {"verbose": -1, "num_threads": 1, "deterministic": True}
    dataset = lightgbm.Dataset(x, y, categorical_feature=list(categorical), params={**common, **parameters})
    return lightgbm.train({"objective": "binary", **common, **parameters}, dataset, rounds)


EXACT: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "numbers": ({}, ()),
    "categories": ({}, (0, 1)),
    "wide sets": ({"max_cat_to_onehot": 1, "min_data_per_group": 1, "cat_smooth": 0}, (0, 1)),
    "sigmoid": ({"sigmoid": 2.0}, (0, 1)),
    "no missing type": ({"use_missing": False}, (0, 1)),
    "dart": ({"boosting": "dart"}, (0, 1)),
    "no average first": ({"boost_from_average": False}, (0, 1)),
    "one leaf": ({"min_data_in_leaf": ROWS - 1}, ()),
}


@pytest.mark.parametrize("name", EXACT)
def test_every_split_goes_as_in_lightgbm(name: str) -> None:
    parameters, categorical = EXACT[name]
    trained = booster(parameters, categorical)
    model = export.to_onnx(trained, export.contract_for(trained))
    report = export.check_parity(trained, model)
    assert report.wrong_leaves == 0
    assert report.max_margin_error <= 1e-9
    assert report.passed
    assert report.rows > report.nodes

    x, _ = data(1)
    scores = engine.open_session(model.SerializeToString()).score(x)
    np.testing.assert_allclose(scores, trained.predict(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"objective": "regression"}, "objective regression"),
        ({"objective": "multiclass", "num_class": 2}, "objective multiclass"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "boosting type rf"),
        ({"linear_tree": True}, "linear leaves"),
        ({"zero_as_missing": True}, "zero is missing"),
    ],
)
def test_what_is_not_exact_is_refused_by_name(parameters: dict[str, Any], message: str) -> None:
    trained = booster(parameters, ())
    with pytest.raises(export.UnsupportedModel, match=message):
        export.contract_for(trained)


def test_early_stopping_exports_the_best_iteration() -> None:
    trained = booster({})
    trained.best_iteration = 7
    model = export.to_onnx(trained, export.contract_for(trained))
    report = export.check_parity(trained, model)
    assert (report.trees, report.passed) == (7, True)


def test_the_proof_sees_one_threshold_moved_by_one_ulp() -> None:
    trained = booster({}, ())
    model = export.to_onnx(trained, export.contract_for(trained))
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsemble")
    (splits,) = (attribute.t for attribute in node.attribute if attribute.name == "nodes_splits")
    values = onnx.numpy_helper.to_array(splits).copy()
    values[5] = float(np.nextafter(floor32(values[5]), np.float32(-np.inf)))
    splits.CopyFrom(onnx.numpy_helper.from_array(values))
    report = export.check_parity(trained, model)
    assert report.wrong_leaves > 0
    assert not report.passed


def test_thresholds_rounded_to_float32_would_be_seen() -> None:
    trained = booster({}, ())
    model = export.to_onnx(trained, export.contract_for(trained))
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsemble")
    (splits,) = (attribute.t for attribute in node.attribute if attribute.name == "nodes_splits")
    rounded = onnx.numpy_helper.to_array(splits).astype(np.float32).astype(np.float64)
    splits.CopyFrom(onnx.numpy_helper.from_array(rounded))
    assert not export.check_parity(trained, model).passed


def test_pandas_categories_become_the_vocabulary() -> None:
    x, y = data()
    table = pd.DataFrame(x[:, 2:5], columns=["a", "b", "c"])
    table["colour"] = pd.Categorical(np.where(x[:, 7] > 0.5, "red", "blue"))
    trained = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(table, y), 10)
    contract = export.contract_for(trained, threshold=0.3, id_field="id")
    assert contract.features[3].vocabulary == ("blue", "red")
    session = engine.open_session(export.to_onnx(trained, contract).SerializeToString())
    assert session.contract.threshold == 0.3
    record = b'{"id":1,"a":0.25,"b":null,"c":-1,"colour":"red"}'
    matrix = engine.Decoder(contract).decode([record]).matrix
    row = pd.DataFrame({"a": [0.25], "b": [np.nan], "c": [-1.0], "colour": pd.Categorical(["red"], ["blue", "red"])})
    assert session.score(matrix)[0] == pytest.approx(trained.predict(row)[0], abs=1e-12)


def test_a_contract_of_another_width_is_refused() -> None:
    trained = booster({}, ())
    contract = export.contract_for(trained)
    with pytest.raises(export.UnsupportedModel, match="8 features, the contract describes 7"):
        export.to_onnx(trained, engine.Contract(contract.features[:7]))
