"""What a parity check found: plain values, as JSON and as a few lines for a person."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from saker.export.proof.onnxmltools_check import SecondOpinion


@dataclass(frozen=True)
class Fault:
    """Why one row differs. kind: "split" (another leaf), "leaf" (same leaf, other value), "sum" (same values, other sum),
    "score" (same margin, other score)."""

    kind: str
    row: int | None  # of the rows in the report: targeted, critical, plain, given; None for a leaf found without a row
    expected: float  # margin of the library, or score for "score", or the leaf's value where there is no row
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
    splits_alone: int  # compared in their tree alone, since rows through the whole model have a limit
    splits_unreachable: int  # no row was found that gets there
    tree_rows: int  # rows for the splits that were compared alone
    tree_rows_off: int  # of them in another leaf
    leaf_values_off: int  # leaves of the file, of all, that add something else than the library's
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
    second_opinion: SecondOpinion | None = None  # onnxmltools' conversion of the same model, where it was asked for

    @property
    def passed(self) -> bool:
        """Same margins on every row (to the last bit where `relative_tolerance` is 0); same scores, decisions and leaves."""
        wrong = (self.margin_rows_off, self.score_rows_off, self.leaf_rows_off, self.tree_rows_off, self.leaf_values_off)
        return not any(wrong) and not self.decision_flips

    @property
    def n_rows(self) -> int:
        return self.rows_targeted + self.rows_critical + self.rows_plain + self.rows_given

    def to_json(self) -> str:
        """One JSON object, with the verdict as `passed`; numbers that JSON cannot hold (NaN, infinities) as strings."""
        return json.dumps(_plain_numbers({"passed": self.passed, **asdict(self)}), indent=1)

    def __str__(self) -> str:
        return (
            f"{self.n_rows + self.tree_rows:,} rows on and next to {self.splits:,} splits of {self.n_trees:,} trees: "
            f"{self.leaf_rows_off + self.tree_rows_off} wrong leaves, {self.margin_rows_off} margins off "
            f"({self.margin_rows_identical:,} the same to the last bit), "
            f"{self.score_rows_off} scores off, {self.decision_flips} decisions"
        )

    def table(self) -> str:
        """A few lines for a person."""
        verdict = "OK" if self.passed else "DIFFERENT"
        lines = [
            f"{verdict}: {self.source} {self.objective}, {self.n_trees} trees, {self.n_outputs} output(s)",
            f"  rows       {self.n_rows}: {self.rows_targeted} targeted, {self.rows_critical} critical, "
            f"{self.rows_plain} plain, {self.rows_given} given",
            f"  splits     {self.splits - self.splits_unreachable} of {self.splits} with targeted rows: "
            f"{self.splits_alone} of them only through their tree, in {self.tree_rows} rows, {self.tree_rows_off} off",
            f"  margins    {self.margin_rows_off} rows off by more than {self.relative_tolerance:g}; "
            f"{self.margin_rows_identical} identical; largest difference {self.margin_max_relative:.2g} relative, "
            f"{self.margin_max_absolute:.2g} absolute",
            f"  scores     {self.score_rows_off} of {self.rows_with_scores_compared} rows off; "
            f"largest difference {self.score_max_relative:.2g} relative",
            f"  leaves     {self.leaf_rows_off} of {self.rows_with_leaves_compared} rows in another leaf; "
            f"{self.leaf_values_off} leaves with another value",
            f"  decisions  {self.decision_flips} flips at {self.decision_threshold:g}",
            f"  took       {self.seconds:.1f} s",
        ]
        if self.second_opinion:
            lines.append(f"  compared   {self.second_opinion}")
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
