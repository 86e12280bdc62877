"""What is exported is what the object that the user holds predicts, whatever it was made with: its own predictions are asked.

As it is in memory, pickled and loaded, and saved by its library and loaded.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import ensemble as forests

from saker.engine.model.session import open_session
from saker.export.errors import ParityError, UnsupportedModel
from saker.export.external_models import contract_for
from saker.export.onnx_writer.convert import to_onnx
from saker.export.proof.leaf_probe import open_session as run
from saker.export.proof.parity import check_parity
from saker.export.proven_export import export_proven
from tests.support.examples import examples

N = 400
RNG = np.random.default_rng(0)
X = RNG.integers(-3, 4, size=(N, 4)).astype(np.float32) / 2
X[RNG.random(X.shape) < 0.1] = np.nan
NOISE = RNG.normal(size=N)
TWO = (np.nan_to_num(X[:, 0] + X[:, 1] * X[:, 2]) + NOISE > 0.3).astype(int)
THREE = np.digitize(np.nan_to_num(X[:, 0]) + NOISE, [-0.5, 0.5])


def predicted(model: Any, rows: Any) -> NDArray[np.float64]:
    made = np.asarray(model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows), np.float64)
    return made[:, 1] if made.ndim == 2 and made.shape[1] == 2 else made


def scores(model: Any, rows: NDArray[Any]) -> NDArray[np.float64]:
    """By the file, which is proven; (n,), or (n, classes) where there are several."""
    exported = to_onnx(model, contract_for(model))
    report = check_parity(model, exported, max_rows=500)
    assert report.passed, report.table()
    made: NDArray[np.float64] = run(exported, 1).run(["score"], {"features": rows.astype(np.float32)})[0]
    return made


def same(model: Any, rows: NDArray[Any] = X, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(scores(model, rows), predicted(model, rows), rtol=tolerance, atol=tolerance)
    loaded = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    np.testing.assert_allclose(scores(loaded, rows), predicted(model, rows), rtol=tolerance, atol=tolerance)


@settings(max_examples=examples(30), deadline=None)
@given(
    kind=st.sampled_from(["classifier", "three classes", "softmax", "logitraw", "regressor", "ranker"]),
    missing=st.sampled_from([np.nan, 0, -1, 0.5, -999, 1e30, -1.5]),
    booster=st.sampled_from(["gbtree", "dart"]),
    base_score=st.sampled_from([None, 0.1, 0.9]),
    stops=st.sampled_from(["", "rounds", "callback", "callback keeps the best"]),
    frame=st.sampled_from([None, np.float32, np.float64]),
    seed=st.integers(0, 3),
)
def test_xgboost(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    missing: float,
    booster: str,
    base_score: float | None,
    stops: str,
    frame: type | None,
    seed: int,
) -> None:
    rows = np.where(np.random.default_rng(seed).random(X.shape) < 0.2, np.float32(missing), X).astype(np.float32)
    x: Any = rows if frame is None else pd.DataFrame(rows.astype(frame), columns=["a", "b", "amount", "d"])
    asked: dict[str, Any] = {"missing": missing, "booster": booster, "base_score": base_score, "n_estimators": 12}
    keeps_the_best = stops == "callback keeps the best" and booster == "gbtree"
    if stops == "rounds":
        asked["early_stopping_rounds"] = 2
    elif stops:
        asked["callbacks"] = [xgboost.callback.EarlyStopping(rounds=2, save_best=keeps_the_best)]
    y = THREE if kind in ("three classes", "softmax", "ranker") else TWO
    fit: dict[str, Any] = {"eval_set": [(x[300:], y[300:])], "verbose": False} if stops else {}
    if kind == "ranker":
        model = xgboost.XGBRanker(**{**asked, "base_score": None})
        fit |= {"group": [20] * 15, **({"eval_group": [[20] * 5]} if stops else {})}
    elif kind == "regressor":
        model = xgboost.XGBRegressor(**asked)
    else:
        objective = {"softmax": "multi:softmax", "logitraw": "binary:logitraw"}.get(kind)
        model = xgboost.XGBClassifier(**asked, **({"objective": objective} if objective else {}))
    model.fit(x[:300], y[:300], **fit)
    same(model, rows, 1e-5)
    path = tmp_path_factory.mktemp("saved") / "model.ubj"
    model.save_model(path)
    loaded = type(model)()
    loaded.load_model(path)  # with its best iteration, and without `missing`: the library's own loss
    np.testing.assert_allclose(scores(loaded, rows), predicted(loaded, rows), rtol=1e-5, atol=1e-5)


@settings(max_examples=examples(24), deadline=None)
@given(
    kind=st.sampled_from(["classifier", "three classes", "one against all", "regressor", "poisson", "ranker"]),
    boosting=st.sampled_from(["gbdt", "dart", "rf", "goss"]),
    missing=st.sampled_from([{}, {"zero_as_missing": True}, {"use_missing": False}]),
    stops=st.booleans(),
    frame=st.sampled_from([None, np.float32, np.float64, "category"]),
    weight=st.sampled_from([{}, {"scale_pos_weight": 3.0}, {"class_weight": "balanced"}]),
)
def test_lightgbm(kind: str, boosting: str, missing: Any, stops: bool, frame: Any, weight: Any) -> None:
    asked: dict[str, Any] = {"n_estimators": 12, "boosting_type": boosting, "verbose": -1, "min_child_samples": 3, **missing}
    if boosting == "rf":
        asked |= {"subsample": 0.6, "subsample_freq": 1}
    several = kind in ("three classes", "one against all", "ranker")
    y = THREE if several else TWO
    if frame is None:
        x: Any = X
    else:
        x = pd.DataFrame(X, columns=["a", "b", "amount", "d"]).astype(np.float32 if frame == "category" else frame)
        if frame == "category":
            x["d"] = pd.Categorical(np.array(["u", "v", "w"])[RNG.integers(3, size=N)])
    if "class" in kind or kind == "one against all":
        model: Any = lightgbm.LGBMClassifier(
            **asked,
            **({} if several and "scale_pos_weight" in weight else weight),
            **({"objective": "multiclassova"} if kind == "one against all" else {}),
        )
    elif kind == "ranker":
        model = lightgbm.LGBMRanker(**asked)
    else:
        model = lightgbm.LGBMRegressor(**asked, **({"objective": "poisson"} if kind == "poisson" else {}))
    fit: dict[str, Any] = {"group": [20] * 15} if kind == "ranker" else {}
    if stops and boosting not in ("dart", "rf"):
        fit |= {"eval_set": [(x[300:], y[300:])], "callbacks": [lightgbm.early_stopping(2, verbose=False)]}
        fit |= {"eval_group": [[20] * 5]} if kind == "ranker" else {}
    model.fit(x[:300], y[:300], **fit)
    rows = X.copy()
    if frame == "category":
        rows[:, 3] = x["d"].cat.codes
        np.testing.assert_allclose(predicted(model, x), predicted(model, rows), rtol=1e-12)
    same(model, rows)


@settings(max_examples=examples(16), deadline=None)
@given(
    kind=st.sampled_from(["hist", "hist three", "hist regressor", "forest", "forest three", "extra", "forest regressor"]),
    labels=st.sampled_from([[0, 1, 2], [1, 0, 2], ["no", "yes", "maybe"], [-1, 1, 5]]),
    class_weight=st.sampled_from([None, "balanced"]),
    stops=st.booleans(),
    frame=st.sampled_from([None, np.float32, np.float64]),
)
def test_scikit_learn(kind: str, labels: list[Any], class_weight: str | None, stops: bool, frame: type | None) -> None:
    y: Any = np.array(labels)[THREE if "three" in kind else TWO]
    x: Any = X if frame is None else pd.DataFrame(X.astype(frame), columns=["a", "b", "amount", "d"])
    early: dict[str, Any] = {"max_iter": 12, "early_stopping": stops, "n_iter_no_change": 2}
    model: Any
    if kind in ("hist", "hist three"):
        model = forests.HistGradientBoostingClassifier(**early, class_weight=class_weight)
    elif kind == "hist regressor":
        model, y = forests.HistGradientBoostingRegressor(**early), NOISE
    elif kind == "forest regressor":
        model, y = forests.RandomForestRegressor(5), NOISE
    else:
        of = forests.ExtraTreesClassifier if kind == "extra" else forests.RandomForestClassifier
        model = of(5, class_weight=class_weight)
    model.fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that an array has not
        same(model)


def test_a_parameter_that_changes_what_an_estimator_predicts() -> None:
    """LightGBM's estimators hand their own parameters to every prediction: what cannot be said in ONNX fails the proof."""
    asked = {
        "n_estimators": 60,
        "verbose": -1,
        "pred_early_stop": True,
        "pred_early_stop_margin": 0.1,
        "pred_early_stop_freq": 1,
    }
    model = lightgbm.LGBMClassifier(**asked, min_child_samples=3).fit(X, TWO)
    assert (model.predict_proba(X)[:, 1] != model.booster_.predict(X)).any()
    with pytest.raises(ParityError):
        export_proven(model, contract_for(model))


@pytest.mark.parametrize(
    "model",
    [
        lambda: xgboost.XGBRFClassifier(n_estimators=3).fit(X, TWO),
        lambda: xgboost.XGBClassifier(booster="gblinear", missing=0).fit(X, TWO),
        lambda: xgboost.XGBClassifier(objective="binary:hinge").fit(X, TWO),
        lambda: xgboost.XGBRegressor(n_estimators=2, multi_strategy="multi_output_tree").fit(X, np.nan_to_num(X[:, :2])),
    ],
)
def test_refused(model: Callable[[], Any]) -> None:
    with pytest.raises(UnsupportedModel):
        export_proven(model(), contract_for(model()))


def test_onnxruntime_takes_the_missing_value_too(tmp_path: Path) -> None:
    rows = np.where(RNG.random(X.shape) < 0.3, np.float32(-1), X).astype(np.float32)
    model = xgboost.XGBClassifier(n_estimators=8, missing=-1).fit(rows, TWO)
    proven = export_proven(model, contract_for(model))
    assert check_parity(model, proven.model, rows).passed
    (tmp_path / "m.onnx").write_bytes(proven.data)
    by_onnxruntime = open_session(tmp_path / "m.onnx", kernels="off")
    assert by_onnxruntime.backend == "onnxruntime"
    np.testing.assert_allclose(by_onnxruntime.score(rows), proven.session.score(rows), rtol=1e-15)
