"""The second opinion: the same Booster as converted by onnxmltools, the usual converter. Extra [second-opinion].

It has no part in the verdict: "off" refers to the file of onnxmltools, since saker's has its own proof.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.export.proof.leaf_probe import open_session

#: A row is off when its score differs by more, relative to the larger of the score and 1: no float32 sum explains that.
OFF = 1e-5


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    converter: str  # "onnxmltools 1.16.0"
    rows: int
    rows_off: int
    largest: float  # difference of two scores
    refused: str | None = None  # why there is no conversion; the other numbers mean nothing then

    def __str__(self) -> str:
        if self.refused:
            return f"{self.converter} refuses it: {self.refused}"
        return f"{self.converter} is off in {self.rows_off} of {self.rows} rows, by {self.largest:.2g} at most"


def second_opinion(model: Any, rows: NDArray[np.float32], scores: NDArray[np.float64]) -> SecondOpinion:
    """Convert with onnxmltools and compare with the library's `scores` (n, k) of `rows` (n, f). Never raises for a model."""
    converter = f"onnxmltools {version('onnxmltools')}"
    try:
        off, largest = rows_off(scores, _scores(model, rows))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a converter makes of a model that it does not know
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:90]}"
        return SecondOpinion(converter, len(rows), 0, 0.0, reason)
    return SecondOpinion(converter, len(rows), off, largest)


def onnxmltools_model(model: Any, width: int) -> Any:
    """The onnx.ModelProto that it makes of a LightGBM model of that many features, in silence."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = getattr(model, "booster_", model)
    types = [("features", FloatTensorType([None, width]))]
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return onnxmltools.convert_lightgbm(model, initial_types=types, zipmap=False, target_opset=15)
    finally:
        logging.disable(disabled)


def _scores(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, k) as the converted model gives them: the probability of class 1 where there are two classes."""
    session = open_session(onnxmltools_model(model, rows.shape[1]))
    names = [output.name for output in session.get_outputs()]
    scores = np.asarray(session.run([names[-1]], {"features": rows})[0], np.float64)
    return scores.reshape(len(rows), -1)


def rows_off(expected: NDArray[np.float64], got: NDArray[np.float64]) -> tuple[int, float]:
    """Rows that are off, and the largest difference; a NaN where none is expected is infinitely far."""
    if got.shape[1] == 2 and expected.shape[1] == 1:  # noqa: PLR2004 - a probability for each of two classes
        got = got[:, 1:]
    if got.shape != expected.shape:
        raise ValueError(f"shape {got.shape} instead of {expected.shape}")
    with np.errstate(invalid="ignore"):
        distance = np.abs(got - expected)
    distance = np.where((got == expected) | (np.isnan(got) & np.isnan(expected)), 0, np.nan_to_num(distance, nan=np.inf))
    rows = (distance > OFF * np.maximum(1, np.abs(expected))).any(axis=1)
    return int(rows.sum()), float(distance.max())
