"""The second opinion: what onnxmltools makes of every kind of model, on the rows that our own proof uses.

    python -m bench.second_opinion > docs/onnxmltools.md

Both files are run by onnxruntime on the same float32 rows and compared with `Booster.predict`. A row is "off" when the
score differs by more than 1e-5 of the score or of 1, whichever is larger: far more than float32 sums could explain.
"""

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench.kinds import KINDS, rows_like_training, written
from export.adversarial import adversarial_rows
from export.lightgbm_model import read_booster
from export.probe import open_session

OFF = 1e-5


@dataclass(frozen=True)
class Row:
    name: str
    ours: str
    plain: str  # rows as in training
    adversarial: str
    largest: str


def onnxmltools_scores(booster: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, k) scores as the converted model gives them: the probability of class 1 where there are two classes."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = onnxmltools.convert_lightgbm(
            booster, initial_types=[("features", FloatTensorType([None, rows.shape[1]]))], zipmap=False, target_opset=15
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return np.asarray(session.run([names[-1]], {"features": rows})[0], np.float64).reshape(len(rows), -1)


def off(expected: NDArray[np.float64], got: NDArray[np.float64]) -> tuple[int, float]:
    """Rows that are off, and the largest difference; a NaN where none is expected is infinitely far."""
    if got.shape[1] == 2 and expected.shape[1] == 1:
        got = got[:, 1:]
    if got.shape != expected.shape:
        raise ValueError(f"shape {got.shape} instead of {expected.shape}")
    with np.errstate(invalid="ignore"):
        distance = np.abs(got - expected)
    distance = np.where((got == expected) | (np.isnan(got) & np.isnan(expected)), 0, np.nan_to_num(distance, nan=np.inf))
    rows = (distance > OFF * np.maximum(1, np.abs(expected))).any(axis=1)
    return int(rows.sum()), float(distance.max())


def measure(name: str) -> Row:
    trained = KINDS[name]()
    booster: Any = getattr(trained, "booster_", trained)
    x = rows_like_training(name, seed=11)
    made = adversarial_rows(read_booster(booster), max_rows=10_000).rows
    plain, hard = (np.asarray(booster.predict(rows), np.float64).reshape(len(rows), -1) for rows in (x, made))
    session = open_session(written(trained))
    our_score = session.run(["score"], {"features": made})[0].reshape(hard.shape)
    ours = f"{off(hard, our_score)[0]} of {len(made)}"
    try:
        off_plain, largest_plain = off(plain, onnxmltools_scores(booster, x))
        off_hard, largest = off(hard, onnxmltools_scores(booster, made))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return Row(name, ours, "refused", "refused", f"{type(error).__name__}: {reason[:90]}".replace("|", "/"))
    biggest = max(largest, largest_plain)
    return Row(name, ours, f"{off_plain} of {len(x)}", f"{off_hard} of {len(made)}", f"{biggest:.2g}")


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import lightgbm
    import onnxmltools

    print(f"""# What onnxmltools {onnxmltools.__version__} gets wrong

Made by `python -m bench.second_opinion` with lightgbm {lightgbm.__version__} and onnxruntime {onnxruntime.__version__}.
Every kind is a small model of bench/kinds.py, trained on float32 data. The columns count rows whose score is further than
1e-5 (relative to the larger of the score and 1) from `Booster.predict` on the same float32 values: for this exporter on the
adversarial rows, for onnxmltools on rows drawn as in training and on the adversarial rows.

| kind | this exporter | onnxmltools, rows as in training | onnxmltools, adversarial rows | its largest difference |
|---|---|---|---|---|""")
    for name in KINDS:
        row = measure(name)
        print(f"| {row.name} | {row.ours} | {row.plain} | {row.adversarial} | {row.largest} |", flush=True)


if __name__ == "__main__":
    main()
