"""onnxmltools on every kind of model, on the rows that our own proof uses: `saker doctor --export`, and the page in docs.

`make onnxmltools-page` writes docs/explanation/onnxmltools.md
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from saker.export.proof.adversarial_rows import adversarial_rows
from saker.export.proof.onnxmltools_check import SecondOpinion, second_opinion
from saker.export.proof.parity import check_parity
from saker.export.readers.lightgbm_model import read_booster
from saker.export.selfcheck.model_zoo import KINDS, rows_like_training, written


@dataclass(frozen=True)
class Defect:
    title: str
    why: str
    kinds: tuple[str, ...]  # models that show it


#: Read in onnxmltools 1.16's convert/lightgbm/operator_converters/LightGbm.py, and seen on the models named here.
DEFECTS = (
    Defect(
        "Thresholds are rounded to the nearest float32",
        "A threshold between two float32 values is rounded up as often as down, and a value on it then takes the other "
        "branch. Every numeric model is affected. Rows like those of training rarely show it, repeated amounts do.",
        ("binary", "regression_l2", "lambdarank"),
    ),
    Defect(
        "The parameter `sigmoid` is ignored",
        "The objective is `binary sigmoid:2`. Only its first word is read, so the slope is 1.",
        ("binary_sigmoid_2", "binary_sigmoid_many_digits"),
    ),
    Defect(
        "Random forests are summed",
        "LightGBM's score is the mean of the trees. The conversion of a Booster uses the sum, that of an estimator "
        "divides it by 100, whatever the number of trees.",
        ("forest_binary", "forest_regression", "forest_multiclass", "forest_poisson", "single_leaf_forest"),
    ),
    Defect(
        "One-against-all is scored as softmax",
        "`multiclassova` begins with `multiclass`, and gets its transform.",
        ("multiclassova", "class_without_rows", "single_leaf_beside_categories"),
    ),
    Defect(
        "`reg_sqrt` is ignored",
        "The sum of the trees is the square root of the target, and is returned without squaring.",
        ("regression_square_root", "regression_l1_square_root"),
    ),
    Defect(
        "Zero as missing is ignored",
        "With missing type zero, LightGBM sends zeros in the default direction. A converted model compares them with "
        "the threshold.",
        ("missing_zero", "missing_zero_binary_category", "only_negative", "continued_zero_then_nan"),
    ),
    Defect(
        "A fractional category is no category",
        "LightGBM truncates: 2.5 is the category 2, and -0.5 the category 0. Sets become a chain of `==` on the raw value.",
        ("category_few_one_hot", "category_40", "category_hundreds", "category_only"),
    ),
    Defect(
        "Early stopping",
        "The trees up to the best iteration are read, but all trees are expected, so the conversion fails.",
        ("early_stopping",),
    ),
    Defect(
        "Objectives that are refused",
        "By an exception, so nothing goes wrong silently.",
        ("cross_entropy", "cross_entropy_lambda", "regression_fair", "regression_mape", "regression_alias", "custom_objective"),
    ),
)


@dataclass(frozen=True)
class Row:
    name: str
    passed: bool  # our own proof
    ours: str
    rows_off: int  # by saker's export, of `adversarial.rows`
    plain: SecondOpinion  # rows as in training
    adversarial: SecondOpinion

    def __str__(self) -> str:
        ours = "exact" if self.passed else "DIFFERENT"
        theirs = self.adversarial.refused or (
            f"onnxmltools off in {self.plain.rows_off} of {self.plain.rows} rows as in training, "
            f"{self.adversarial.rows_off} of {self.adversarial.rows} adversarial, by {self._largest()} at most"
        )
        return f"{self.name}: {ours}, {self.ours}; {theirs}"

    def markdown(self) -> str:
        plain, adversarial = self.plain, self.adversarial
        cells = [f"{plain.rows_off} of {plain.rows}", f"{adversarial.rows_off} of {adversarial.rows}", self._largest()]
        if adversarial.refused:
            cells = ["refused", "refused", adversarial.refused.replace("|", "/")]
        return f"| {self.name} | {self.ours} | {' | '.join(cells)} |"

    def _largest(self) -> str:
        return f"{max(self.plain.largest, self.adversarial.largest):.2g}"


def measure(name: str) -> Row:
    """Train one kind, export and prove it, and ask onnxmltools."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = KINDS[name]()
        booster: Any = getattr(trained, "booster_", trained)
        report = check_parity(trained, written(trained))
        made = adversarial_rows(read_booster(booster), max_rows=10_000).rows
        opinions = [
            second_opinion(booster, rows, np.asarray(booster.predict(rows), np.float64).reshape(len(rows), -1))
            for rows in (rows_like_training(name, seed=11), made)
        ]
    wrong = report.margin_rows_off + report.score_rows_off
    return Row(name, report.passed, f"{wrong} of {report.n_rows} rows off", wrong, *opinions)


def main() -> None:
    from importlib.metadata import version

    print(f"""# What onnxmltools {version("onnxmltools")} gets wrong

`make onnxmltools-page` writes this page, here with lightgbm {version("lightgbm")} and onnxruntime {version("onnxruntime")}.
Every kind is a small model of export/selfcheck/model_zoo.py. A row of onnxmltools counts as off if its score differs by
more than 1e-5 (relative to the larger of the score and 1) from `Booster.predict` on the same float32 values. A row of saker
counts as off if its margin differs in any bit, or its score by more than a relative 1e-15.

    saker doctor --export                # all kinds, on your machine with your versions
    saker export --run latest --second-opinion

## By defect
""")
    rows = {name: measure(name) for name in KINDS}
    for defect in DEFECTS:
        print(f"### {defect.title}\n\n{defect.why}\n")
        for name in defect.kinds:
            print(f"    saker doctor --export --kind {name}\n    {rows[name]}\n")
    print("## By kind of model\n")
    print("| kind | saker | onnxmltools, rows as in training | onnxmltools, adversarial rows | its largest difference |")
    print("|---|---|---|---|---|")
    for row in rows.values():
        print(row.markdown())


if __name__ == "__main__":
    main()
