"""How far live records have moved from those trained on: the population stability index (PSI) of each feature and of the score.

    training rows --distribution--> Contract.reference        live rows --psi--> Drift per feature, and of the score

PSI sums (p - q) ln(p / q) over the bins; above 0.1 one usually looks, above 0.25 one acts (Siddiqi, Credit Risk Scorecards,
2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from saker.engine.contract import Contract, Distribution
from saker.engine.errors import SakerError

#: Above this PSI a feature or the score has drifted.
LIMIT = 0.25
_BINS = 10
_FEW = 20  # values that get a bin each
_SMALLEST = 1e-4  # share of a bin that is empty: of nothing there is no logarithm

Values = NDArray[np.float32] | NDArray[np.float64]


class NoReference(SakerError):
    """The model does not say what its training rows were like."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One feature, or `score`: its PSI and the share that is missing now and was then. judged: whether the limit is for it."""

    name: str
    psi: float
    missing: float
    missing_then: float
    judged: bool = True


def distribution(values: Values) -> Distribution:
    """Of values (n,), NaN for missing: a bin for each of a few values, bins of equal shares otherwise."""
    present = np.sort(values[~np.isnan(values)].astype(np.float64))
    distinct = np.unique(present)
    if len(distinct) <= _FEW:
        edges = distinct[:-1]
    else:
        edges = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1], method="inverted_cdf"))
    return Distribution(tuple(edges.tolist()), _shares(values, edges))


def _shares(values: Values, edges: NDArray[np.float64]) -> tuple[float, ...]:
    present = values[~np.isnan(values)].astype(np.float64)
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    return tuple(round(float(n) / max(len(values), 1), 6) for n in (*counts, len(values) - len(present)))


def psi(then: Distribution, values: Values) -> float:
    """Of values (n,) now against the training rows; 0 for the same shares, without an upper bound."""
    now = np.maximum(_shares(values, np.array(then.edges)), _SMALLEST)
    before = np.maximum(then.shares, _SMALLEST)
    return float(((now - before) * np.log(now / before)).sum())


def drift(contract: Contract, matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> list[Drift]:
    """The score first, then the features by falling PSI. matrix: live rows (n, f); scores (m,) of any live records.

    Hour and day are not judged: a window of some days has other hours and days than weeks of training rows. Raises
    `NoReference` for a model that was not trained by `saker train`, or by an older one.
    """
    if not contract.reference or contract.score_reference is None:
        raise NoReference("the model does not say what it was trained on (`reference` in its contract): train it again")
    found = [
        Drift(
            feature.name,
            psi(then, matrix[:, column]),
            float(np.isnan(matrix[:, column]).mean()),
            then.shares[-1],
            feature.kind != "derived",
        )
        for column, (feature, then) in enumerate(zip(contract.features, contract.reference, strict=True))
    ]
    found.sort(key=lambda told: -told.psi)
    return [Drift("score", psi(contract.score_reference, scores), 0.0, 0.0), *found]


def drifted(found: Sequence[Drift], limit: float) -> list[Drift]:
    return [told for told in found if told.judged and told.psi > limit]


def plot(found: Sequence[Drift], limit: float) -> bytes:
    """The score and the twenty largest PSI, as PNG."""
    shown = list(found[:21])[::-1]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    colours = ["tab:red" if told.judged and told.psi > limit else "tab:blue" if told.judged else "tab:grey" for told in shown]
    axes.barh([told.name for told in shown], [told.psi for told in shown], color=colours)
    axes.axvline(limit, linestyle=":", color="grey")
    axes.set(title="Drift against the training rows", xlabel="PSI (grey: not judged)")
    page = BytesIO()
    figure.savefig(page, format="png", dpi=110)
    return page.getvalue()
