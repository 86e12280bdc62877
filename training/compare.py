"""Whether a challenger takes the champion's place: both scored on the same rows, which neither was trained on.

    labels, scores of both --compare--> Decision: promoted or not, every reason, figures, a report with plots

Pure: it knows no registry. The challenger wins only if the whole interval of its gain in ROC AUC, from a paired bootstrap over
the rows, lies above the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score, roc_curve

from saker.engine.errors import SakerError
from saker.training.drift import distribution, psi
from saker.training.evaluate import FALSE_POSITIVE_RATE, Labels, Scores, evaluate

_RESAMPLES = 200
_CONFIDENCE = 0.95
_BINS = 10


class CannotCompare(SakerError):
    """The rows cannot decide which model is better."""


@dataclass(frozen=True, slots=True)
class Rules:
    """margin: what ROC AUC must gain at least. floor: ROC AUC that a first champion needs."""

    margin: float = 0.0
    floor: float = 0.7
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version's name (fraud/7), its scores of the rows (n,) and its threshold."""

    name: str
    scores: Scores
    threshold: float


@dataclass(frozen=True, slots=True)
class Decision:
    """`why` is one line. `figures` by name, challenger's and champion's; `report` is Markdown, `plots` a PNG that it shows."""

    promoted: bool
    why: str
    figures: dict[str, float] = field(default_factory=dict)
    report: str = ""
    plots: bytes = b""


def compare(
    challenger: Candidate, champion: Candidate | None, labels: Labels, rules: Rules, checks: Sequence[tuple[str, bool]] = ()
) -> Decision:
    """checks: further requirements (description, whether it holds), such as a clean parity report.

    Raises `CannotCompare` if the rows do not have both labels.
    """
    if len(set(labels.tolist())) != 2:  # noqa: PLR2004 - both labels
        raise CannotCompare(
            f"ROC AUC needs both labels among the {len(labels):,} rows that neither model was trained on; use more rows"
        )
    figures = {f"challenger_{name}": value for name, value in _figures(challenger, labels).items()}
    failed = [words for words, holds in checks if not holds]
    if champion is None:
        auc = figures["challenger_roc_auc"]
        promoted = auc >= rules.floor and not failed
        why = f"ROC AUC {auc:.4f} on {len(labels):,} rows; required for a first champion: {rules.floor:g}"
    else:
        figures |= {f"champion_{name}": value for name, value in _figures(champion, labels).items()}
        figures |= _paired(challenger, champion, labels, rules.seed)
        gain, low, high = (figures[f"roc_auc_gain{part}"] for part in ("", "_low", "_high"))
        promoted = low > rules.margin and not failed
        why = (
            f"ROC AUC {figures['challenger_roc_auc']:.4f}, {champion.name} {figures['champion_roc_auc']:.4f}, "
            f"on {len(labels):,} rows: gain {gain:+.4f} (95 % interval {low:+.4f} to {high:+.4f}); "
            f"required: more than {rules.margin:g}"
        )
    if failed:
        why += f"; failed: {', '.join(failed)}"
    if not promoted:
        why = f"{challenger.name} stays challenger: {why}"
    else:
        why = f"{challenger.name} is the {'first' if champion is None else 'new'} champion: {why}"
    shown = [challenger] if champion is None else [challenger, champion]
    return Decision(promoted, why, figures, _report(why, shown, figures, checks), _plots(shown, labels))


def _figures(of: Candidate, labels: Labels) -> dict[str, float]:
    calibration = np.abs(np.subtract(*calibration_curve(labels, np.clip(of.scores, 0, 1), n_bins=_BINS, strategy="quantile")))
    flagged = of.scores >= of.threshold
    return {
        **evaluate(labels, of.scores),
        "brier": float(brier_score_loss(labels, np.clip(of.scores, 0, 1))),
        "calibration_error": float(calibration.mean()),
        "recall_at_threshold": float(flagged[labels == 1].mean()),
        "false_positive_rate_at_threshold": float(flagged[labels == 0].mean()),
    }


def _paired(challenger: Candidate, champion: Candidate, labels: Labels, seed: int) -> dict[str, float]:
    """Gains with their intervals (rows drawn with replacement, fraud and legitimate apart), score shift and decision flips."""
    rng = np.random.default_rng(seed)
    fraud, legitimate = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    measures = {"roc_auc": roc_auc_score, "pr_auc": average_precision_score}
    gains: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([rng.choice(fraud, len(fraud)), rng.choice(legitimate, len(legitimate))])
        weights = np.bincount(drawn, minlength=len(labels)).astype(np.float64)
        for name, measure in measures.items():
            new, old = (measure(labels, of.scores, sample_weight=weights) for of in (challenger, champion))
            gains[name].append(float(new - old))
    told: dict[str, float] = {}
    for name, measure in measures.items():
        low, high = np.quantile(gains[name], [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
        told[f"{name}_gain"] = float(measure(labels, challenger.scores) - measure(labels, champion.scores))
        told |= {f"{name}_gain_low": float(low), f"{name}_gain_high": float(high)}
    flagged, was = challenger.scores >= challenger.threshold, champion.scores >= champion.threshold
    told["score_psi"] = psi(distribution(champion.scores), challenger.scores)
    told["newly_flagged"], told["no_longer_flagged"] = float((flagged & ~was).sum()), float((was & ~flagged).sum())
    return told


_ROWS = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "recall_at_1pct_fpr": f"recall at {FALSE_POSITIVE_RATE:.0%} false positives",
    "recall_at_threshold": "recall at the model's threshold",
    "false_positive_rate_at_threshold": "false positives at the model's threshold",
    "brier": "Brier score (lower is better)",
    "calibration_error": "mean calibration error of ten bins",
}


def _report(why: str, shown: Sequence[Candidate], figures: dict[str, float], checks: Sequence[tuple[str, bool]]) -> str:
    roles = ("challenger", "champion")[: len(shown)]
    lines = ["# Promotion", "", f"**{why}**", "", f"| | {' | '.join(of.name for of in shown)} |", f"|---|{'---|' * len(shown)}"]
    for name, words in _ROWS.items():
        cells = [f"{figures[f'{role}_{name}']:.4f}" for role in roles]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines.append("")
    if len(shown) > 1:
        for name in ("roc_auc", "pr_auc"):
            gain, low, high = (figures[f"{name}_gain{part}"] for part in ("", "_low", "_high"))
            lines.append(
                f"- {_ROWS[name]} gain {gain:+.4f}, {_CONFIDENCE:.0%} interval {low:+.4f} to {high:+.4f} (paired bootstrap)"
            )
        flips = f"{figures['newly_flagged']:.0f} newly flagged, {figures['no_longer_flagged']:.0f} no longer flagged"
        lines += [f"- score shift (PSI) {figures['score_psi']:.4f}", f"- decisions that change: {flips}"]
    lines += [f"- {words}: {'passed' if holds else 'FAILED'}" for words, holds in checks]
    return "\n".join([*lines, "", "![ROC, precision and recall, calibration, scores](promotion.png)", ""])


def _plots(shown: Sequence[Candidate], labels: Labels) -> bytes:
    figure = Figure(figsize=(11, 8), layout="constrained")
    roc, pr, calibration, scores = figure.subplots(2, 2).flat
    edges = np.linspace(0, 1, 41)
    for of in shown:
        clipped = np.clip(of.scores, 0, 1)
        false_positives, recall, _ = roc_curve(labels, of.scores)
        roc.plot(false_positives, recall, label=of.name)
        precision, recall, _ = precision_recall_curve(labels, of.scores)
        pr.plot(recall, precision, label=of.name)
        observed, predicted = calibration_curve(labels, clipped, n_bins=_BINS, strategy="quantile")
        calibration.plot(predicted, observed, "o-", label=of.name)
        scores.hist(clipped, bins=edges, histtype="step", log=True, label=of.name)
    roc.set(title="ROC", xlabel="false positive rate", ylabel="recall")
    pr.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    calibration.set(title="Calibration", xlabel="mean score of a bin", ylabel="share of fraud in it")
    scores.set(title="Scores", xlabel="fraud score", ylabel="rows")
    for axes in (roc, pr, calibration, scores):
        axes.legend()
    page = BytesIO()
    figure.savefig(page, format="png", dpi=110)
    return page.getvalue()
