"""The registry and the comparison put together: fresh rows, both models on them, a decision that is written down."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from saker.commands.records import read_table
from saker.engine.config import MODEL
from saker.engine.contract import Contract
from saker.export.registry import model_versions, run_artifacts
from saker.training import compare, tables


def decide(
    data: Path | None,
    label: str,
    time: str | None,
    id_field: str,
    rules: tuple[float, float],
    tracking_uri: str,
    missing: Collection[str] = (),
) -> compare.Decision:
    """Compare the challenger with the champion, and settle it in the registry. rules: margin and floor.

    Rows that either of the two learned from are left out, by their time.
    """
    challenger, champion = model_versions.candidates(tracking_uri)
    name = f"{MODEL}/{challenger.version}"
    if champion is not None and champion.version == challenger.version:
        return compare.Decision(False, f"{name} is already champion")
    if data is None:
        records, labels = run_artifacts.newest_rows(tracking_uri)
        truth = np.array(labels, np.int64)
    else:
        table, read = read_table(data, id_field, missing)
        truth = tables.labels_of(table, label)
        records = tables.to_records(table.drop(columns=[label])) if read is None else list(map(read.as_json, read.records))
    contract, scores, proven = model_versions.score_rows(challenger, records, tracking_uri)
    known = [(challenger, contract)]
    kept = ~np.isnan(scores)
    if champion is not None:
        other, other_scores, _ = model_versions.score_rows(champion, records, tracking_uri)
        known.append((champion, other))
        kept &= ~np.isnan(other_scores)
    column = time or run_artifacts.time_column(challenger, tracking_uri)
    kept &= _fresh(records, column, [of for _, of in known])
    if not kept.any():
        raise compare.CannotCompare(
            f"all {len(records):,} rows are old: {MODEL} was trained on rows at least as new; use newer rows"
        )
    sides = [compare.Candidate(name, scores[kept], contract.threshold)]
    if champion is not None:
        sides.append(compare.Candidate(f"{MODEL}/{champion.version}", other_scores[kept], other.threshold))
    decision = compare.compare(
        sides[0],
        sides[1] if champion is not None else None,
        truth[kept],
        compare.Rules(*rules),
        [("parity report clean", proven)],
    )
    files = {
        "promotion.md": decision.report.encode(),
        "promotion.png": decision.plots,
        "promotion.json": json.dumps({"promoted": decision.promoted, "why": decision.why, **decision.figures}).encode(),
    }
    model_versions.settle(challenger, promoted=decision.promoted, why=decision.why, files=files, tracking_uri=tracking_uri)
    return decision


def _fresh(records: list[bytes], column: str, contracts: list[Contract]) -> NDArray[np.bool_]:
    """Rows (n,) that are newer than the training data of every model."""
    ends = [c.provenance.learned_until for c in contracts if c.provenance.learned_until is not None]
    if not ends:
        return np.ones(len(records), np.bool_)
    times = np.array([orjson.loads(record).get(column, np.nan) for record in records], np.float64)
    if np.isnan(times).all():
        raise compare.CannotCompare(
            f"the rows have no time in {column!r} (--time): saker cannot tell which rows are newer than the training data"
        )
    return times >= max(ends)
