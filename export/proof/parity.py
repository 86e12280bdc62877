"""The proof that an exported model is the Booster: `check_parity`. The report is a value; nothing is kept.

Booster --trees--> adversarial rows (+ random, + given) --+--> Booster.predict -----+--> margins, scores --> ParityReport
            |                                             +--> onnxruntime(model) --+        |
            +--> splits without rows there: each tree alone, its leaves     rows that differ: leaf probe --> split at fault
"""

import time
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from saker.engine.onnx_trees import SCORE_TOLERANCE
from saker.export.onnx_writer.metadata import read_contract, read_facts
from saker.export.onnx_writer.objectives import TRANSFORMS
from saker.export.proof.adversarial_rows import adversarial_rows
from saker.export.proof.diagnosis import explain, wrong_leaf_values
from saker.export.proof.distance import distance, rounding_floor
from saker.export.proof.leaf_probe import LeafProbe, open_session
from saker.export.proof.onnxmltools_check import second_opinion
from saker.export.proof.report import ParityReport
from saker.export.proof.tree_by_tree import check_trees
from saker.export.readers.open_source import open_source

_CHUNK_ROWS = 8192
# Most rows, and rows x trees, that are made for the whole model: onnxruntime is many times slower where splits have wide
# sets. Splits that find no place there are compared in their tree alone.
_WITH_SETS, _WITHOUT_SETS = (20_000, 10_000_000), (200_000, 100_000_000)
_LEAF_SAMPLE_CELLS = 1_000_000  # rows x trees whose leaves are compared even where the margins agree
_MAX_FAULTS = 10


def check_parity(
    booster: Any,
    model: ModelProto,
    rows: NDArray[np.generic] | None = None,
    *,
    decision_threshold: float | None = None,
    max_rows: int | None = None,
    seed: int = 0,
    threads: int = 1,
    compare_onnxmltools: bool = False,
) -> ParityReport:
    """Compare the exported model, run by onnxruntime, with the Booster it was made from.

    rows: real rows to compare as well, (n, f); they are cast to float32, which is what both sides get.
    decision_threshold: scores on different sides of it count as a flip; default: the threshold of the contract.
    max_rows: limit for the rows that are made; the default takes at most a minute for a large model.
    threads: for both sides. With one, sums come in the same order and margins are identical.
    compare_onnxmltools: also convert with onnxmltools (extra [second-opinion]). It takes seconds if splits have sets of
        categories, and has no part in the verdict.

    With one thread margins must be LightGBM's to the last bit, and scores within a relative 1e-15. Where the sum's order
    differs (several threads) or the library adds in float32 (XGBoost), both must agree within the source's relative
    tolerance; where trees nearly cancel, the limit is the rounding error of a sum of these trees in any order.

    Raises BrokenModel for a file that `to_onnx` did not write, and ValueError for rows of another width.
    """
    start = time.monotonic()
    facts = read_facts(model)
    source = open_source(booster, facts.iterations)
    ensemble, exact = source.ensemble, source.exact and threads == 1
    tolerance = source.relative_tolerance
    if decision_threshold is None:
        decision_threshold = read_contract(model).threshold
    if max_rows is None:
        most, walks = _WITH_SETS if any(tree.categories for tree in ensemble.trees) else _WITHOUT_SETS
        max_rows = max(1000, min(most, walks // len(ensemble.trees)))
    made = adversarial_rows(ensemble, max_rows=max_rows, seed=seed)
    probe = LeafProbe(model, [tree.n_leaves for tree in ensemble.trees])
    alone = check_trees(source, probe, made.left_over, threads, _MAX_FAULTS)
    # Rows that were wrong in their tree go through the whole model too, where the cause is found.
    given = np.concatenate([alone.wrong, _given(rows, ensemble.n_features)])
    matrix = source.admissible(np.concatenate([made.rows, given]))

    margin = source.margins(matrix, threads)
    onnx_margin, onnx_score = _model_outputs(model, matrix, threads)
    floor = rounding_floor(source)
    same, margin_error = distance(onnx_margin, margin)
    margin_relative = margin_error / np.maximum(np.abs(margin), floor / tolerance)
    margin_off = ~(same if exact else margin_relative <= tolerance).all(axis=1)

    # The score is a function of the margin alone, and asking LightGBM for it walks all trees again: a third is enough,
    # in addition to the given rows and every row with another margin.
    scored = ~same.all(axis=1) | (np.arange(len(matrix)) % 3 == 0) | (np.arange(len(matrix)) >= len(made.rows))
    score, onnx_score = source.scores(matrix[scored], threads), onnx_score[scored]
    same_score, score_error = distance(onnx_score, score)
    if exact:
        score_limit = SCORE_TOLERANCE * np.abs(score) + np.finfo(np.float64).smallest_subnormal * 4
    else:
        # What the margin may be off by, the score may be: in proportion, after an exponential, and as it is otherwise.
        score_limit = (floor + tolerance * np.maximum(1, np.abs(margin[scored]))) * np.abs(score)
        score_limit += 0 if TRANSFORMS[facts.objective].meaning == "probability" else floor
    score_off = np.zeros(len(matrix), np.bool_)
    score_off[scored] = ~(score_error <= score_limit).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        score_relative = np.where(same_score, 0, score_error / np.abs(score))
    flips = ((score >= decision_threshold) != (onnx_score >= decision_threshold)).any(axis=1)

    suspects = np.flatnonzero(margin_off)[:1000]
    sample = np.linspace(0, len(matrix) - 1, max(1, min(len(matrix), _LEAF_SAMPLE_CELLS // len(ensemble.trees)))).astype(int)
    looked_at = np.union1d(suspects, sample)
    other_leaf = np.zeros(len(matrix), np.bool_)
    for part in np.array_split(looked_at, max(1, len(looked_at) * len(ensemble.trees) // 4_000_000)):
        other_leaf[part] = (source.leaves(matrix[part], threads) != probe.leaves(matrix[part])).any(axis=1)

    faults = []
    for row in np.flatnonzero(margin_off | other_leaf | score_off)[:_MAX_FAULTS].tolist():
        at = int(scored[:row].sum())  # where the row is among those with scores, if it is one of them
        scores = (score[at], onnx_score[at]) if scored[row] else None
        margins = (margin[row], onnx_margin[row])
        faults.append(explain(source, probe, matrix[row : row + 1], row, margins, scores))
    other_values = wrong_leaf_values(source, probe)
    faults += other_values[: _MAX_FAULTS - len(faults)]
    return ParityReport(
        source=facts.source,
        objective=facts.objective,
        n_trees=facts.n_trees,
        n_outputs=ensemble.n_outputs,
        rows_targeted=made.n_targeted,
        rows_critical=made.n_critical,
        rows_plain=made.n_plain,
        rows_given=len(given),
        splits=made.splits,
        splits_alone=sum(map(len, made.left_over.values())),
        splits_unreachable=made.splits_unreachable + alone.unreachable,
        tree_rows=alone.rows,
        tree_rows_off=alone.rows_off,
        leaf_values_off=len(other_values),
        rows_with_leaves_compared=len(looked_at),
        relative_tolerance=0.0 if exact else tolerance,
        margin_rows_identical=int(same.all(axis=1).sum()),
        margin_rows_off=int(margin_off.sum()),
        margin_max_absolute=float(margin_error.max()),
        margin_max_relative=float(margin_relative.max()),
        rows_with_scores_compared=int(scored.sum()),
        score_rows_off=int(score_off.sum()),
        score_max_relative=float(score_relative.max()),
        leaf_rows_off=int(other_leaf.sum()),
        decision_threshold=decision_threshold,
        decision_flips=int(flips.sum()),
        faults=tuple(faults),
        seconds=round(time.monotonic() - start, 3),
        versions={
            "source": ensemble.source,
            **{name: version(name) for name in ("numpy", "onnx", "onnxruntime")},
        },
        second_opinion=second_opinion(booster, matrix[scored], score) if compare_onnxmltools else None,
    )


def _given(rows: NDArray[np.generic] | None, n_features: int) -> NDArray[np.float32]:
    if rows is None:
        return np.zeros((0, n_features), np.float32)
    given = np.ascontiguousarray(rows, np.float32)
    if given.shape != (len(given), n_features):
        raise ValueError(f"rows: expected the shape (n, {n_features}), got {given.shape}")
    return given


def _model_outputs(
    model: ModelProto, matrix: NDArray[np.float32], threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    session = open_session(model, threads)
    starts = range(0, len(matrix), _CHUNK_ROWS)
    parts = [session.run(["raw", "score"], {"features": matrix[start : start + _CHUNK_ROWS]}) for start in starts]
    margin = np.concatenate([raw for raw, _ in parts])
    return margin, np.concatenate([score for _, score in parts]).reshape(margin.shape)
