"""Tiny models, one behaviour each: (name -> function that trains it). The tests and the tables in docs/ share them."""

from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from saker.export.external_models import contract_for
from saker.export.onnx_writer.convert import to_onnx

Kind = Callable[[], Any]
KINDS: dict[str, Kind] = {}
SHAPES: dict[str, Callable[[int], NDArray[np.float32]]] = {}
N_ROWS, N_FEATURES, CATEGORY_COLUMN = 800, 5, 4
QUIET = {"verbose": -1, "num_leaves": 8, "min_data_in_leaf": 4, "num_threads": 1, "seed": 3, "deterministic": True}


def features(seed: int = 0, *, n_categories: int = 40) -> NDArray[np.float32]:
    """(N_ROWS, N_FEATURES) numbers with missing values and zeros; the last column holds categories."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N_ROWS, N_FEATURES)).astype(np.float32)
    x[rng.random(x.shape) < 0.15] = np.nan
    x[rng.random(x.shape) < 0.15] = 0
    x[:, CATEGORY_COLUMN] = rng.integers(0, n_categories, N_ROWS)
    return x


def target(x: NDArray[np.float32], seed: int = 1) -> NDArray[np.float64]:
    """(n,) a value that depends on the numbers, on zero, on missing and on the category."""
    noise = np.random.default_rng(seed).normal(size=len(x)) / 3
    value = np.nan_to_num(x[:, 0], nan=1.0) - np.nan_to_num(x[:, 1], nan=-0.5) + (x[:, 2] == 0) + noise
    return np.asarray(value + ((x[:, CATEGORY_COLUMN] * 7) % 5 < 2))


def train(
    params: dict[str, Any],
    *,
    rounds: int = 12,
    y: NDArray[Any] | None = None,
    x: NDArray[np.float32] | None = None,
    categorical: list[int] | None = None,
    dataset: dict[str, Any] | None = None,
    **options: Any,
) -> lgb.Booster:
    x = features() if x is None else x
    y = target(x) if y is None else y
    params = QUIET | params
    data = lgb.Dataset(x, y, categorical_feature=categorical or [], params=params, free_raw_data=False, **(dataset or {}))
    return lgb.train(params, data, rounds, **options)


def kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


def add(name: str, params: dict[str, Any], *, shape: Callable[[int], NDArray[np.float32]] = features, **options: Any) -> None:
    """shape: seed -> rows as this kind has them in training."""
    SHAPES[name] = shape
    y = options.pop("y", None)
    if y is None:
        y = target(shape(0) if shape(0).shape[1] == N_FEATURES else features())
    KINDS[name] = lambda: train(params, x=shape(0), y=y, **options)


def rows_like_training(name: str, seed: int) -> NDArray[np.float32]:
    """Other rows of the same kind as those that the model was trained on."""
    return SHAPES.get(name, features)(seed).astype(np.float32)


LABEL = (target(features()) > 0.5).astype(float)
CLASS = np.digitize(target(features()), [0.0, 1.0]).astype(float)
SHARE = 1 / (1 + np.exp(-target(features())))
POSITIVE = np.exp(target(features()) / 2)

# Objectives
add("binary", {"objective": "binary"}, y=LABEL)
add("binary_sigmoid_2", {"objective": "binary", "sigmoid": 2.0}, y=LABEL)
add("binary_sigmoid_many_digits", {"objective": "binary", "sigmoid": 0.123456789}, y=LABEL)
add("binary_never_saved", {"objective": "binary", "sigmoid": 0.123456789}, y=LABEL, keep_training_booster=True)
add("binary_unbalanced", {"objective": "binary", "is_unbalance": True}, y=LABEL)
add("binary_not_from_average", {"objective": "binary", "boost_from_average": False}, y=LABEL)
add("cross_entropy", {"objective": "cross_entropy"}, y=SHARE)
add("cross_entropy_lambda", {"objective": "cross_entropy_lambda"}, y=SHARE)
for _name, _objective in {"l2": "regression", "l1": "regression_l1"}.items():
    add(f"regression_{_name}", {"objective": _objective}, y=POSITIVE)
add("regression_alias", {"objective": "l2"}, y=POSITIVE)  # a peer reads the parameter as it was spelled
for _name in ("huber", "fair", "quantile", "mape"):
    add(f"regression_{_name}", {"objective": _name}, y=POSITIVE)
add("regression_square_root", {"objective": "regression", "reg_sqrt": True}, y=target(features()) * 3)
add("regression_l1_square_root", {"objective": "regression_l1", "reg_sqrt": True}, y=target(features()) * 3)
for _name in ("poisson", "gamma", "tweedie"):
    add(f"regression_{_name}", {"objective": _name}, y=POSITIVE)
add("multiclass", {"objective": "multiclass", "num_class": 3}, y=CLASS)
add("multiclass_2", {"objective": "multiclass", "num_class": 2}, y=LABEL)
add("multiclassova", {"objective": "multiclassova", "num_class": 3, "sigmoid": 1.5}, y=CLASS)
for _name in ("lambdarank", "rank_xendcg"):
    add(_name, {"objective": _name}, y=CLASS, dataset={"group": [20] * (N_ROWS // 20)})


@kind
def custom_objective() -> lgb.Booster:
    def squared(margin: NDArray[np.float64], data: lgb.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return margin - data.get_label(), np.ones_like(margin)

    return train({"objective": squared})


@kind
def custom_objective_two_outputs() -> lgb.Booster:
    def squared(margin: NDArray[np.float64], data: lgb.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return margin - data.get_label()[:, None], np.ones_like(margin)

    return train({"objective": squared, "num_class": 2})


# Boosting
add("dart", {"objective": "binary", "boosting": "dart", "drop_rate": 0.5}, y=LABEL)
add("goss", {"objective": "binary", "data_sample_strategy": "goss"}, y=LABEL)
FOREST = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
add("forest_binary", FOREST | {"objective": "binary"}, y=LABEL)
add("forest_regression", FOREST | {"objective": "regression"})
add("forest_multiclass", FOREST | {"objective": "multiclass", "num_class": 3}, y=CLASS)
add("forest_poisson", FOREST | {"objective": "poisson"}, y=POSITIVE)
add("monotone", {"objective": "regression", "monotone_constraints": [1, -1, 0, 0, 0]})
add("extra_trees", {"objective": "regression", "extra_trees": True})
add("quantized_gradients", {"objective": "regression", "use_quantized_grad": True})

# Missing values
add("missing_nan", {"objective": "regression"})
add("missing_none", {"objective": "regression", "use_missing": False})
add("missing_zero", {"objective": "regression", "zero_as_missing": True}, rounds=30)
add("missing_zero_binary_category", {"objective": "binary", "zero_as_missing": True}, y=LABEL, categorical=[4])
add("nothing_missing", {"objective": "regression"}, shape=lambda seed: np.nan_to_num(features(seed), nan=0.5))
add("only_negative", {"objective": "regression", "zero_as_missing": True}, shape=lambda seed: -np.abs(features(seed)))
add("few_bins", {"objective": "regression", "max_bin": 3})

# Categories
SMALL = {"objective": "regression", "min_data_per_group": 1, "cat_smooth": 1.0, "cat_l2": 0.0}
add("category_1", SMALL, shape=lambda seed: features(seed, n_categories=1), categorical=[4])
add("category_2", SMALL, shape=lambda seed: features(seed, n_categories=2), categorical=[4])
add(
    "category_few_one_hot",
    SMALL | {"max_cat_to_onehot": 8},
    shape=lambda seed: features(seed, n_categories=6),
    categorical=[4],
)
add("category_40", SMALL, categorical=[4])
add("category_hundreds", SMALL | {"max_cat_threshold": 300, "min_data_in_bin": 1}, categorical=[4],
    shape=lambda seed: features(seed, n_categories=400),
    y=(features(n_categories=400)[:, 4] * 7) % 5 < 2)  # fmt: skip
add("category_large_numbers", SMALL, y=target(features()), categorical=[4],
    shape=lambda seed: features(seed) * np.array([1, 1, 1, 1, 2500], np.float32))  # fmt: skip
add(
    "category_only",
    SMALL,
    shape=lambda seed: np.floor(np.abs(np.nan_to_num(features(seed))) * 3),
    categorical=[0, 1, 2, 3, 4],
)


@kind
def category_missing_in_training() -> lgb.Booster:
    x = features()
    x[::7, CATEGORY_COLUMN] = np.nan
    return train(SMALL, x=x, y=target(features()), categorical=[4])


@kind
def category_negative_in_training() -> lgb.Booster:
    x = features()
    x[::7, CATEGORY_COLUMN] = -1
    return train(SMALL, x=x, y=target(features()), categorical=[4])


# One feature, read in several ways: training continued on another data set
@kind
def continued_zero_then_nan() -> lgb.Booster:
    first = train({"objective": "regression", "zero_as_missing": True}, rounds=8)
    return train({"objective": "regression"}, rounds=8, init_model=first)


@kind
def continued_number_then_category() -> lgb.Booster:
    first = train({"objective": "regression", "zero_as_missing": True}, rounds=8)
    return train(SMALL, rounds=8, categorical=[4], init_model=first)


# Sizes and iterations
add("one_tree", {"objective": "binary"}, y=LABEL, rounds=1)
add("stumps", {"objective": "binary", "num_leaves": 2}, y=LABEL)
add("deep", {"objective": "regression", "num_leaves": 200, "min_data_in_leaf": 1})
add("single_leaf", {"objective": "regression", "min_data_in_leaf": 700}, rounds=3)
add("single_leaf_forest", FOREST | {"objective": "binary", "min_data_in_leaf": 700}, y=LABEL, rounds=4)
add("single_leaf_multiclass", {"objective": "multiclass", "num_class": 3, "min_data_in_leaf": 700}, y=CLASS, rounds=2)
add("class_without_rows", {"objective": "multiclassova", "num_class": 4}, y=CLASS, rounds=3)
add("single_leaf_beside_categories", {"objective": "multiclassova", "num_class": 4}, y=CLASS, rounds=3,
    shape=lambda seed: features(seed)[:, [CATEGORY_COLUMN]], categorical=[0])  # fmt: skip
add("one_feature", {"objective": "regression"}, shape=lambda seed: features(seed)[:, :1])


@kind
def early_stopping() -> lgb.Booster:
    x, y = features(), LABEL
    params = QUIET | {"objective": "binary", "learning_rate": 0.5}
    data = lgb.Dataset(x[:400], y[:400], params=params)
    stop = lgb.early_stopping(10, verbose=False)
    # Kept as it is: saving and loading, which lgb.train does otherwise, leaves the trees after the best away.
    return lgb.train(params, data, 60, valid_sets=[data.create_valid(x[400:], y[400:])], callbacks=[stop],
                     keep_training_booster=True)  # fmt: skip


@kind
def early_stopping_forest() -> lgb.Booster:
    x, y = features(), LABEL
    params = QUIET | FOREST | {"objective": "binary"}
    data = lgb.Dataset(x[:400], y[:400], params=params)
    valid = data.create_valid(x[400:], y[400:])
    return lgb.train(params, data, 40, valid_sets=[valid], callbacks=[lgb.early_stopping(3, verbose=False)])


@kind
def refitted() -> lgb.Booster:
    booster = train({"objective": "binary"}, y=LABEL)
    return booster.refit(features(seed=9), LABEL)


@kind
def edited_leaf() -> lgb.Booster:
    booster = train({"objective": "regression"})
    return booster.set_leaf_output(3, 2, 1 / 3)


@kind
def rolled_back() -> lgb.Booster:
    booster = train({"objective": "regression"}, keep_training_booster=True)
    return booster.rollback_one_iter()


# scikit-learn
@kind
def sklearn_classifier() -> Any:
    return lgb.LGBMClassifier(n_estimators=12, num_leaves=8, verbose=-1, num_threads=1).fit(features(), LABEL)


@kind
def sklearn_classifier_three_names() -> Any:
    names = np.array(["low", "middle", "high"])[CLASS.astype(int)]
    return lgb.LGBMClassifier(n_estimators=6, num_leaves=8, verbose=-1, num_threads=1).fit(features(), names)


@kind
def sklearn_regressor() -> Any:
    return lgb.LGBMRegressor(n_estimators=12, num_leaves=8, verbose=-1, num_threads=1).fit(features(), target(features()))


@kind
def sklearn_ranker() -> Any:
    ranker = lgb.LGBMRanker(n_estimators=12, num_leaves=8, verbose=-1, num_threads=1)
    return ranker.fit(features(), CLASS.astype(int), group=[20] * (N_ROWS // 20))


def written(model: Any, iterations: int | None = None) -> ModelProto:
    """The model as ONNX with its own contract."""
    return to_onnx(model, contract_for(model, iterations=iterations), iterations=iterations)
