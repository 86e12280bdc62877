"""A model that scores: onnxruntime behind the contract, proven by its golden records when it is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine.contract import Contract, read_contract
from engine.decode import Decoder
from engine.errors import ModelRefused

#: The output that is the score, when a model has several: `saker export` writes the raw margin beside it.
OUTPUT = "score"


class Session:
    """Scores rows. One thread, and none that spins: a worker process has one core for everything."""

    def __init__(self, model: bytes, contract: Contract) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._run = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelRefused(f"model: onnxruntime {onnxruntime.__version__} cannot load it: {error}") from error
        inputs, outputs = self._run.get_inputs(), self._run.get_outputs()
        width = len(contract.features)
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or inputs[0].shape[-1] != width:
            found = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
            raise ModelRefused(f"model: expected one float32 input (n, {width}), as its contract says, got {found}")
        scores = [o for o in outputs if o.name == OUTPUT and o.type == "tensor(double)" and len(o.shape) == 1]
        if not scores:
            found = ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs)
            raise ModelRefused(f"model: expected an output {OUTPUT}, float64 (n,), one score a row, got {found}")
        self.contract = contract
        self._input = inputs[0].name

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (n,) float64 of the rows `x` (n, f) float32, columns in the contract's order, NaN for missing."""
        if len(x) == 0:
            return np.empty(0)
        scores: NDArray[np.float64] = self._run.run([OUTPUT], {self._input: x})[0]
        return scores


def open_session(model: bytes | str | Path) -> Session:
    """Load an ONNX file or its bytes and prove it; raises `ModelRefused` with the reason when it may not serve."""
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    session = Session(data, read_contract(data))
    _prove(session)
    return session


def _prove(session: Session) -> None:
    golden = session.contract.golden
    if not golden:
        raise ModelRefused("model: its contract has no golden records, so nothing shows that it scores as trained")
    decoded = Decoder(session.contract).decode([g.record.encode() for g in golden])
    if decoded.rejections:
        first = decoded.rejections[0]
        raise ModelRefused(f"model: golden record {first.index} is rejected by its own contract: {first.message}")
    rows = np.array([g.row for g in golden], np.float32)
    if rows.shape != decoded.matrix.shape or not np.array_equal(decoded.matrix, rows, equal_nan=True):
        raise ModelRefused("model: its golden records decode to other rows than when it was trained")
    scores = session.score(decoded.matrix)
    expected = np.array([g.score for g in golden])
    difference = np.abs(scores - expected) / np.maximum(np.abs(expected), 1)
    if not (difference <= session.contract.tolerance).all():
        worst = int(np.nanargmax(np.where(np.isnan(difference), np.inf, difference)))
        raise ModelRefused(
            f"model: golden record {worst} must score {golden[worst].score!r} and scores {float(scores[worst])!r}",
        )
