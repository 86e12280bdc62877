"""What a model is worth on labelled rows, and one page of plots that shows it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]

#: The load that a fraud team can review: one legitimate transaction in a hundred.
FALSE_POSITIVE_RATE = 0.01

#: The figures of `evaluate`.
FIGURES = ("roc_auc", "pr_auc", "recall_at_1pct_fpr")


def evaluate(labels: Labels, scores: Scores) -> dict[str, float]:
    """ROC AUC, PR AUC and the recall at 1 % false positives."""
    false_positives, recall, _ = roc_curve(labels, scores)
    figures = (
        roc_auc_score(labels, scores),
        average_precision_score(labels, scores),
        np.interp(FALSE_POSITIVE_RATE, false_positives, recall),
    )
    return dict(zip(FIGURES, map(float, figures), strict=True))


def threshold_at_false_positive_rate(labels: Labels, scores: Scores) -> float:
    """A score that flags at most 1 % of the legitimate rows, and as much fraud as that allows.

    It lies half-way between two scores that occur: right at one of them, two libraries that differ in a score's last bit would
    differ in the decision.
    """
    legitimate = np.sort(scores[labels == 0])[::-1]
    highest = legitimate[int(len(legitimate) * FALSE_POSITIVE_RATE)]  # of those that must not be flagged
    above = scores[scores > highest]
    next_up = np.nextafter(highest, np.inf)
    return float(max((highest + above.min()) / 2, next_up) if len(above) else next_up)


def plots(labels: Labels, scores: Scores, importance: dict[str, float]) -> bytes:
    """ROC, precision and recall, scores by label, and the features with the largest gain: a PNG."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    roc, pr, scored, gain = figure.subplots(2, 2).flat

    false_positives, recall, _ = roc_curve(labels, scores)
    _line(roc, false_positives, recall, "ROC", "false positive rate", "recall")
    roc.axvline(FALSE_POSITIVE_RATE, linestyle=":", color="grey")
    precision, recall, _ = precision_recall_curve(labels, scores)
    _line(pr, recall, precision, "Precision and recall", "recall", "precision")

    bins = np.linspace(0, 1, 41)
    scored.hist([scores[labels == 0], scores[labels == 1]], bins=bins, label=["legitimate", "fraud"], log=True)
    scored.set(title="Scores", xlabel="fraud score", ylabel="rows")
    scored.legend()

    top = sorted(importance.items(), key=lambda item: item[1])[-15:]
    gain.barh([name for name, _ in top], [value for _, value in top])
    gain.set(title="Features", xlabel="gain")

    page = BytesIO()
    figure.savefig(page, format="png", dpi=110)
    return page.getvalue()


def _line(axes: Any, x: Scores, y: Scores, title: str, xlabel: str, ylabel: str) -> None:
    axes.plot(x, y)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02))
