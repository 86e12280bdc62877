"""Random data, parameters and rows: whatever LightGBM trains, the file says the same."""

from typing import Any

import lightgbm as lgb
import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saker.engine.onnx_trees import floor32
from saker.export.proof.leaf_probe import open_session
from saker.export.proof.parity import check_parity
from saker.export.selfcheck.model_zoo import written
from tests.support.examples import examples

NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.integers(-3, 40).map(float),
    st.sampled_from([0.0, -0.0, float(np.float32(1e-35)), -float(np.float32(1e-35)), 1e-37, float("nan")]),
)
PARAMETERS = st.fixed_dictionaries(
    {
        "objective": st.sampled_from(["binary", "l2", "multiclass", "multiclassova", "cross_entropy", "poisson"]),
        "boosting": st.sampled_from(["gbdt", "dart", "rf"]),
        "zero_as_missing": st.booleans(),
        "use_missing": st.booleans(),
        "num_leaves": st.integers(2, 12),
        "min_data_in_leaf": st.integers(1, 30),
        "max_bin": st.sampled_from([2, 3, 16, 255]),
        "max_cat_to_onehot": st.sampled_from([1, 4, 50]),
        "sigmoid": st.sampled_from([0.5, 1.0, 3.25]),
        "seed": st.integers(0, 1000),
    }
)


@st.composite
def models(draw: st.DrawFn) -> lgb.Booster:
    params = draw(PARAMETERS) | {
        "verbose": -1,
        "num_threads": 1,
        "min_data_per_group": 1,
        "bagging_freq": 1,
        "bagging_fraction": 0.7,
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, f = draw(st.integers(60, 200)), draw(st.integers(1, 4))
    x = (rng.normal(size=(n, f)) * 10.0 ** rng.integers(-36, 30, f)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[rng.random(x.shape) < 0.2] = 0
    categorical = draw(st.lists(st.integers(0, f - 1), unique=True))
    for column in categorical:
        x[:, column] = rng.integers(0, draw(st.sampled_from([2, 20, 200])), n)
    n_classes = 3 if str(params["objective"]).startswith("multiclass") else 1
    y = rng.integers(0, 3, n) if n_classes == 3 else (np.nan_to_num(x[:, 0]) > 0)
    params["num_class"] = n_classes
    data = lgb.Dataset(x, y.astype(float), categorical_feature=categorical, params=params)
    return lgb.train(params, data, draw(st.integers(1, 6)))


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(models(), st.data())
def test_any_model_on_any_rows(booster: lgb.Booster, data: st.DataObject) -> None:
    model = written(booster)
    rows: Any = data.draw(arrays(np.float32, (8, booster.num_feature()), elements=NUMBERS))
    score, raw = open_session(model).run(["score", "raw"], {"features": rows})
    np.testing.assert_array_equal(raw, booster.predict(rows, raw_score=True).reshape(raw.shape))
    np.testing.assert_allclose(score, booster.predict(rows), rtol=1e-12)
    report = check_parity(booster, model, rows, max_rows=400)
    assert report.passed, report.table()
    assert report.splits_unreachable == 0


@given(st.floats(allow_nan=False), st.floats(width=32, allow_nan=False))
@example(-3.402823364973241e38, 0.0)
def test_floor32_keeps_every_comparison(threshold: float, x: float) -> None:
    floor = floor32(np.array([threshold]))
    assert floor.dtype == np.float32
    assert (x <= threshold) == bool(np.float32(x) <= floor[0])
