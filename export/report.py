"""What a parity check found: plain values, as JSON and as a few lines for a person."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fault:
    """Why one row differs. kind: "split" (another leaf), "leaf" (same leaf, other value), "sum" (same values, other sum),
    "score" (same margin, other score)."""

    kind: str
    row: int  # in the rows of the report: targeted, critical, plain, given
    expected: float  # margin, or score for "score", of LightGBM
    got: float
    tree: int | None = None
    split: int | None = None  # where the two paths part
    feature: str | None = None
    value: float | None = None  # the row's
    detail: str = ""


@dataclass(frozen=True)
class ParityReport:
    """What was compared, and how far apart it was. `passed` is the verdict."""

    source: str
    objective: str
    n_trees: int
    n_outputs: int
    rows_targeted: int
    rows_critical: int
    rows_plain: int
    rows_given: int
    splits: int
    splits_targeted: int  # fewer than `splits`: the row limit left room for a sample, drawn evenly over the trees
    splits_unreachable: int
    rows_with_leaves_compared: int
    relative_tolerance: float
    margin_rows_identical: int  # to the last bit
    margin_rows_off: int  # further apart than the tolerance
    margin_max_absolute: float
    margin_max_relative: float  # to the larger of |margin| and the rounding that any order of adding could make
    rows_with_scores_compared: int
    score_rows_off: int
    score_max_relative: float
    leaf_rows_off: int  # of the rows whose leaves were compared
    decision_threshold: float
    decision_flips: int  # scores on different sides of the decision threshold
    faults: tuple[Fault, ...]  # the first few
    seconds: float
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Same margins on every row (to the last bit where `relative_tolerance` is 0); same scores, decisions and leaves."""
        return not (self.margin_rows_off or self.score_rows_off or self.leaf_rows_off or self.decision_flips)

    @property
    def n_rows(self) -> int:
        return self.rows_targeted + self.rows_critical + self.rows_plain + self.rows_given

    def to_json(self) -> str:
        """One JSON object, with the verdict as `passed`; numbers that JSON cannot hold (NaN, infinities) as strings."""
        return json.dumps(_plain_numbers({"passed": self.passed, **asdict(self)}), indent=1)

    def __str__(self) -> str:
        return (
            f"{self.n_rows:,} rows on and beside {self.splits:,} splits of {self.n_trees:,} trees: {self.leaf_rows_off} wrong "
            f"leaves, {self.margin_rows_off} margins off ({self.margin_rows_identical:,} the same to the last bit), "
            f"{self.score_rows_off} scores off, {self.decision_flips} decisions"
        )

    def table(self) -> str:
        """A few lines for a person."""
        sample = "" if self.splits_targeted == self.splits else " (a sample, even over the trees)"
        verdict = "OK" if self.passed else "DIFFERENT"
        lines = [
            f"{verdict}: {self.source} {self.objective}, {self.n_trees} trees, {self.n_outputs} output(s)",
            f"  rows       {self.n_rows}: {self.rows_targeted} targeted, {self.rows_critical} critical, "
            f"{self.rows_plain} plain, {self.rows_given} given",
            f"  splits     {self.splits_targeted} of {self.splits} with rows of their own{sample}; "
            f"{self.splits_unreachable} without a row that gets there",
            f"  margins    {self.margin_rows_off} rows off by more than {self.relative_tolerance:g}; "
            f"{self.margin_rows_identical} identical; largest difference {self.margin_max_relative:.2g} relative, "
            f"{self.margin_max_absolute:.2g} absolute",
            f"  scores     {self.score_rows_off} of {self.rows_with_scores_compared} rows off; "
            f"largest difference {self.score_max_relative:.2g} relative",
            f"  leaves     {self.leaf_rows_off} of {self.rows_with_leaves_compared} rows in another leaf",
            f"  decisions  {self.decision_flips} flips at {self.decision_threshold:g}",
            f"  took       {self.seconds:.1f} s",
        ]
        lines += [f"  fault      {fault.detail}" for fault in self.faults]
        return "\n".join(lines)


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
