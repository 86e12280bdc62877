"""XGBoost and scikit-learn through the same door, each against its own predictions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn import ensemble as forests
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from saker.export.errors import UnsupportedModel
from saker.export.proof.leaf_probe import open_session
from saker.export.proof.parity import check_parity
from saker.export.readers.open_source import open_source
from saker.export.selfcheck.model_zoo import CLASS, LABEL, N_ROWS, POSITIVE, SHARE, features, target, written

X = features()
FULL = np.nan_to_num(X, nan=0.25)


def xgb(objective: str, y: Any, rounds: int = 10, **params: Any) -> Callable[[], Any]:
    group = params.pop("group", None)

    def train() -> xgboost.Booster:
        data = xgboost.DMatrix(X, y)
        if group:
            data.set_group(group)
        return xgboost.train({"objective": objective, "max_depth": 4, "nthread": 1, **params}, data, rounds)

    return train


MODELS: dict[str, Callable[[], Any]] = {
    "xgb_logistic": xgb("binary:logistic", LABEL),
    "xgb_logistic_base_score": xgb("binary:logistic", LABEL, base_score=0.01),
    "xgb_reg_logistic": xgb("reg:logistic", SHARE),
    "xgb_logitraw": xgb("binary:logitraw", LABEL),
    "xgb_squared_error": xgb("reg:squarederror", target(X)),
    "xgb_absolute_error": xgb("reg:absoluteerror", target(X)),
    "xgb_poisson": xgb("count:poisson", POSITIVE),
    "xgb_gamma": xgb("reg:gamma", POSITIVE),
    "xgb_tweedie": xgb("reg:tweedie", POSITIVE),
    "xgb_softprob": xgb("multi:softprob", CLASS, num_class=3),
    "xgb_rank": xgb("rank:ndcg", CLASS, group=[20] * (N_ROWS // 20)),
    "xgb_dart": xgb("binary:logistic", LABEL, booster="dart", rate_drop=0.5),
    "xgb_one_leaf": xgb("binary:logistic", LABEL, min_child_weight=1e6),
    "xgb_deep": xgb("reg:squarederror", target(X), max_depth=12, min_child_weight=0),
    "xgb_classifier": lambda: xgboost.XGBClassifier(n_estimators=10, max_depth=3).fit(X, LABEL),
    "xgb_early_stopping": lambda: xgboost.XGBClassifier(
        n_estimators=200, max_depth=6, learning_rate=1.0, early_stopping_rounds=3
    ).fit(X[:400], LABEL[:400], eval_set=[(X[400:], LABEL[400:])], verbose=False),
    "hist_binary": lambda: forests.HistGradientBoostingClassifier(max_iter=10).fit(X, LABEL),
    "hist_multiclass": lambda: forests.HistGradientBoostingClassifier(max_iter=6).fit(X, CLASS),
    "hist_regressor": lambda: forests.HistGradientBoostingRegressor(max_iter=10).fit(X, target(X)),
    "hist_poisson": lambda: forests.HistGradientBoostingRegressor(loss="poisson", max_iter=10).fit(X, POSITIVE),
    "hist_quantile": lambda: forests.HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=10).fit(X, POSITIVE),
    "forest_classifier": lambda: forests.RandomForestClassifier(10, max_depth=6).fit(X, LABEL),
    "forest_three_classes": lambda: forests.RandomForestClassifier(6, max_depth=6).fit(X, CLASS),
    "forest_nothing_missing": lambda: forests.RandomForestClassifier(10, max_depth=6).fit(FULL, LABEL),
    "forest_regressor": lambda: forests.RandomForestRegressor(10, max_depth=6).fit(X, target(X)),
    "extra_trees": lambda: forests.ExtraTreesRegressor(10, max_depth=6).fit(X, target(X)),
    "tree_classifier": lambda: DecisionTreeClassifier(max_depth=6).fit(X, LABEL),
    "tree_regressor": lambda: DecisionTreeRegressor().fit(FULL, target(X)),
}


@pytest.fixture(scope="module")
def model_of() -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            made[name] = MODELS[name]()
        return made[name]

    return get


@pytest.mark.parametrize("name", MODELS)
def test_same_leaves_margins_and_scores(name: str, model_of: Callable[[str], Any]) -> None:
    report = check_parity(model_of(name), written(model_of(name)), features(seed=4), max_rows=3000)
    assert report.passed, report.table()
    assert report.rows_with_leaves_compared == report.n_rows
    if not name.startswith("xgb"):
        assert report.margin_rows_identical == report.n_rows


@pytest.mark.parametrize("name", MODELS)
def test_score_is_what_the_library_predicts(name: str, model_of: Callable[[str], Any]) -> None:
    """Against the public call that a user would make, not through our own adapter."""
    model = model_of(name)
    rows = np.nan_to_num(features(seed=4), nan=0.25)
    score = open_session(written(model)).run(["score"], {"features": rows})[0]
    if isinstance(model, xgboost.Booster):
        expected = model.predict(xgboost.DMatrix(rows))
    elif hasattr(model, "predict_proba"):
        expected = model.predict_proba(rows)
        expected = expected[:, 1] if expected.shape[1] == 2 else expected
    else:
        expected = model.predict(rows)
    rtol, atol = (1e-5, 1e-6) if name.startswith("xgb") else (1e-12, 0)
    np.testing.assert_allclose(score, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["xgb_logistic", "xgb_softprob", "hist_binary", "hist_multiclass", "forest_classifier"])
def test_iteration_limit(name: str, model_of: Callable[[str], Any]) -> None:
    exported = written(model_of(name), iterations=3)
    assert check_parity(model_of(name), exported, max_rows=600).passed
    with pytest.raises(ValueError, match=r"iterations: expected 1\.\."):
        written(model_of(name), iterations=1000)


def test_early_stopping_of_the_estimator(model_of: Callable[[str], Any]) -> None:
    model = model_of("xgb_early_stopping")
    assert open_source(model).ensemble.iterations == model.best_iteration + 1 < model.get_booster().num_boosted_rounds()


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (xgb("multi:softmax", CLASS, num_class=3), "objective"),
        (xgb("binary:hinge", LABEL), "objective"),
        (xgb("reg:squarederror", FULL[:, 0], booster="gblinear"), "booster"),
        (xgb("binary:logistic", LABEL, num_parallel_tree=3), "num_parallel_tree"),
        (
            lambda: xgboost.train(
                {"max_cat_to_onehot": 1},
                xgboost.DMatrix(X, LABEL, feature_types=["q"] * 4 + ["c"], enable_categorical=True),
                3,
            ),
            "categorical splits",
        ),
        (lambda: xgboost.train({"multi_strategy": "multi_output_tree"}, xgboost.DMatrix(X, FULL[:, :2]), 2), "targets"),
        (
            lambda: forests.HistGradientBoostingClassifier(max_iter=2, categorical_features=[4]).fit(X, LABEL),
            "categorical features",
        ),
        (lambda: forests.RandomForestRegressor(2).fit(FULL, FULL[:, :2]), "outputs"),
        (lambda: LogisticRegression().fit(FULL, LABEL), "estimator"),
        (lambda: forests.GradientBoostingClassifier(n_estimators=2).fit(FULL, LABEL), "estimator"),
        (lambda: forests.IsolationForest(n_estimators=3).fit(FULL), "estimator"),
        (object, "library"),
    ],
)
def test_refused_by_name(model: Callable[[], Any], what: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        written(model())
    assert caught.value.what == what
