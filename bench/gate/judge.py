"""Decides whether a change made something slower, from figures of alternating rounds. Pure.

Each round has a figure of the base, of the base again, and of the head. Base against base shows the
noise of the machine. The head fails only if it is worse than that beyond doubt, in two separate measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 10_000
_CONFIDENCE = 0.99
#: What is never held against a change: two builds of the same code may lie so far apart.
_FLOOR = 1.02


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over the rounds; smaller is better. name: with its unit. base[i], again[i], head[i]: of round i, above 0."""

    stage: str
    name: str
    base: Sequence[float]
    again: Sequence[float]
    head: Sequence[float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ratio`: head to base, the mean over the rounds (of logarithms); `low`, `high`: its band.

    `allowed`: the highest ratio that the noise of base against base explains, at least 1.02. Passed unless the whole band is
    above it.
    """

    stage: str
    name: str
    base: float
    head: float
    ratio: float
    low: float
    high: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.low <= self.allowed

    def __str__(self) -> str:
        return (
            f"{'passed' if self.passed else 'FAILED'}  {self.stage}, {self.name}: base {self.base:.4g}, head {self.head:.4g}, "
            f"ratio {self.ratio:.3f} ({self.low:.3f} to {self.high:.3f}), allowed {self.allowed:.3f}"
        )


def confirmed(measure: Callable[[], Iterable[Figure]], say: Callable[[str], None]) -> list[Verdict]:
    """Verdicts on the figures that `measure` makes, the same ones each time it is called.

    Where some fail they are measured once more, and the second verdict holds: among many figures of few rounds one fails by
    chance now and then, seldom twice.
    """
    first = [judge(figure) for figure in measure()]
    if all(verdict.passed for verdict in first):
        return first
    for verdict in first:
        if not verdict.passed:
            say(f"{verdict}: measuring again")
    return [old if old.passed else new for old, new in zip(first, map(judge, measure()), strict=True)]


def judge(figure: Figure, seed: int = 0) -> Verdict:
    """Paired bootstrap over the rounds; raises ValueError for fewer than three rounds or a figure that is not above 0."""
    base, again, head = (np.asarray(side, np.float64) for side in (figure.base, figure.again, figure.head))
    if not (len(base) == len(again) == len(head) >= 3):  # noqa: PLR2004 - two rounds cannot tell
        raise ValueError(
            f"{figure.stage}, {figure.name}: expected three rounds or more of each, got {len(base)}, {len(again)}, {len(head)}"
        )
    if not (np.concatenate([base, again, head]) > 0).all():
        raise ValueError(f"{figure.stage}, {figure.name}: expected figures above 0")
    rng = np.random.default_rng(seed)
    # Both runs of the base count: a round in which one of them was slow proves nothing about the head.
    low, ratio, high = _band(np.log(head) - (np.log(base) + np.log(again)) / 2, rng)
    noise_low, _, noise_high = _band(np.log(again) - np.log(base), rng)
    return Verdict(
        stage=figure.stage,
        name=figure.name,
        base=float(np.median(base)),
        head=float(np.median(head)),
        ratio=math.exp(ratio),
        low=math.exp(low),
        high=math.exp(high),
        allowed=max(math.exp(max(-noise_low, noise_high)), _FLOOR),
    )


def _band(differences: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float, float]:
    means = differences[rng.integers(len(differences), size=(_RESAMPLES, len(differences)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(differences.mean()), float(high)
