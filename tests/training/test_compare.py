"""Who becomes champion, and why not."""

from __future__ import annotations

import numpy as np
import pytest

import saker.training.compare
from saker.training.compare import Candidate, CannotCompare, Rules, compare
from tests.support.examples import seeds

ROWS = 3_000


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decisions below are clear: 200 resamples take seconds each."""
    monkeypatch.setattr(saker.training.compare, "_RESAMPLES", 40)


def labels_and_scores(*strengths: float, seed: int = 0) -> tuple[np.ndarray, list[Candidate]]:
    """Scores that see the fraud as well as their strength says; they share most of their noise, as models of one data do."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(ROWS) < 0.05).astype(np.int64)
    noise = rng.normal(size=ROWS)
    candidates = []
    for number, strength in enumerate(strengths):
        margins = strength * labels + noise + 0.2 * rng.normal(size=ROWS) - 3
        candidates.append(Candidate(f"fraud/{number + 1}", 1 / (1 + np.exp(-margins)), 0.5))
    return labels, candidates


def test_clearly_better_wins_and_clearly_worse_does_not() -> None:
    labels, (weak, strong) = labels_and_scores(1.0, 2.5)
    won = compare(strong, weak, labels, Rules())
    assert won.promoted
    assert won.why.startswith("fraud/2 is the new champion: ROC AUC 0.9")
    assert won.figures["roc_auc_gain_low"] > 0
    lost = compare(weak, strong, labels, Rules())
    assert not lost.promoted
    assert lost.why.startswith("fraud/1 stays challenger: ROC AUC 0.8183, fraud/2 0.97")
    assert lost.figures["roc_auc_gain"] == pytest.approx(-won.figures["roc_auc_gain"])


@pytest.mark.parametrize("seed", seeds(5))
def test_the_same_strength_moves_nothing(seed: int) -> None:
    labels, (one, other) = labels_and_scores(1.5, 1.5, seed=seed)
    assert not compare(one, other, labels, Rules()).promoted


def test_a_gain_below_the_margin_is_not_enough() -> None:
    labels, (weak, strong) = labels_and_scores(1.0, 2.5)
    told = compare(strong, weak, labels, Rules(margin=0.5))
    assert not told.promoted
    assert "required: more than 0.5" in told.why


def test_a_first_champion_needs_the_floor() -> None:
    labels, (weak, strong) = labels_and_scores(0.1, 2.5)
    assert compare(strong, None, labels, Rules(floor=0.8)).promoted
    told = compare(weak, None, labels, Rules(floor=0.8))
    assert not told.promoted
    assert "required for a first champion: 0.8" in told.why
    assert "champion_roc_auc" not in told.figures


def test_a_failed_check_stops_the_best_model_and_stands_in_the_reason() -> None:
    labels, (weak, strong) = labels_and_scores(1.0, 2.5)
    told = compare(strong, weak, labels, Rules(), [("parity report clean", False)])
    assert not told.promoted
    assert told.why.endswith("failed: parity report clean")
    assert "- parity report clean: FAILED" in told.report


def test_the_report_tells_what_changes_for_the_people_behind_it() -> None:
    labels, (weak, strong) = labels_and_scores(1.0, 2.5)
    told = compare(strong, weak, labels, Rules())
    flipped = (strong.scores >= 0.5) != (weak.scores >= 0.5)
    assert told.figures["newly_flagged"] + told.figures["no_longer_flagged"] == flipped.sum() > 0
    assert told.figures["score_psi"] > 0
    for words in ("| ROC AUC |", "| PR AUC |", "95% interval", "decisions that change", "Brier", "promotion.png"):
        assert words in told.report
    assert told.plots.startswith(b"\x89PNG")


def test_rows_of_one_label_say_nothing() -> None:
    labels, (weak, strong) = labels_and_scores(1.0, 2.5)
    with pytest.raises(CannotCompare, match="both labels"):
        compare(strong, weak, np.zeros_like(labels), Rules())
