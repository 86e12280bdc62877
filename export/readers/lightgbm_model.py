"""LightGBM as a `Source`: a Booster or an estimator of lightgbm, and its own predictions as the oracle."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.export.readers.ensemble import Ensemble
from saker.export.readers.lightgbm_text import parse_model_text
from saker.export.readers.source import of_last_class, predicted


class LightGBMSource:
    """Reads the Booster and does not change it. Raises ValueError for iterations that the model does not have."""

    exact = True
    relative_tolerance = 1e-9
    sum_epsilon = float(np.finfo(np.float64).eps)

    def __init__(self, model: Any, iterations: int | None = None) -> None:
        self._booster = getattr(model, "booster_", model)
        self._estimator = None if self._booster is model else model
        self.ensemble = read_booster(self._booster, iterations)

    def margins(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        return self._predict(rows, threads, raw_score=True)

    def scores(self, rows: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
        if self._estimator is None:
            return self._predict(rows, threads)
        result = predicted(self._estimator, rows, num_iteration=self.ensemble.iterations, num_threads=threads)
        return of_last_class(result, self.ensemble.n_outputs)

    def leaves(self, rows: NDArray[np.float32], threads: int, iteration: int | None = None) -> NDArray[np.int64]:
        only = {} if iteration is None else {"start_iteration": iteration, "num_iteration": 1}
        return self._predict(rows, threads, pred_leaf=True, **only).astype(np.int64)

    def leaf_values(self, tree: int) -> NDArray[np.float64]:
        leaves = range(self.ensemble.trees[tree].n_leaves)
        return np.array([self._booster.get_leaf_output(tree, leaf) for leaf in leaves])

    def admissible(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows

    def _predict(self, rows: NDArray[np.float32], threads: int, **what: int) -> NDArray[np.float64]:
        asked = {"num_iteration": self.ensemble.iterations, "num_threads": threads, **what}
        result = self._booster.predict(rows, **asked)
        return np.asarray(result, np.float64).reshape(len(rows), -1)


def read_booster(booster: Any, iterations: int | None = None) -> Ensemble:
    """The trees that `booster.predict` would use, of the first `iterations`.

    By default as in `Booster.predict`: up to the best iteration if early stopping set one, otherwise all.
    """
    total = booster.current_iteration()
    if iterations is None:
        iterations = booster.best_iteration if booster.best_iteration > 0 else total
    elif not 1 <= iterations <= total:
        raise ValueError(f"iterations: expected 1..{total}, got {iterations}")
    ensemble = parse_model_text(booster.model_to_string(num_iteration=iterations))
    ensemble = replace(ensemble, categories=booster.pandas_categorical)
    return _with_exact_sigmoid(ensemble, booster)


def _with_exact_sigmoid(ensemble: Ensemble, booster: Any) -> Ensemble:
    """The text has six digits of `sigmoid`; a Booster that was never saved computes with all of them.

    Which of the two this one uses cannot be asked, so it is seen from a few scores.
    """
    asked = booster.params.get("sigmoid")
    if asked is None or float(asked) == ensemble.sigmoid or float(f"{float(asked):g}") != ensemble.sigmoid:
        return ensemble
    rows = np.random.default_rng(0).normal(size=(64, ensemble.n_features)).astype(np.float32)
    margin = np.asarray(booster.predict(rows, raw_score=True, num_iteration=ensemble.iterations), np.float64)
    score = np.asarray(booster.predict(rows, num_iteration=ensemble.iterations), np.float64)
    if ensemble.averaged:
        margin /= ensemble.iterations
    errors = {s: np.abs(1 / (1 + np.exp(-s * margin)) - score).max() for s in (ensemble.sigmoid, float(asked))}
    return replace(ensemble, sigmoid=min(errors, key=lambda s: errors[s]))
