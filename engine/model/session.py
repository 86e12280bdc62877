"""A model that scores, behind its contract: by the native trees where they take it, by onnxruntime otherwise.

    rows --+--> native trees: sums --> the rest of the graph --+--> scores
           +--> onnxruntime -----------------------------------+

Proven when it is opened: the native trees against onnxruntime, then the whole by the contract's golden records.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from saker.engine.contract import Contract, read_contract
from saker.engine.errors import ModelRefused, SakerError
from saker.engine.history.table_history import history_of
from saker.engine.kernels import mode_of
from saker.engine.kernels import native as load_native
from saker.engine.kernels.errors import Damaged, Refused
from saker.engine.kernels.onnx_reader.graph import external_tensors
from saker.engine.model.native_trees import NativeTrees
from saker.engine.onnx_metadata import is_proven
from saker.engine.records.decode import Decoder

if TYPE_CHECKING:
    from saker.engine.kernels import _native

_FLOATS = ("tensor(double)", "tensor(float)")


class Session:
    """Scores rows. One thread, and none that spins: a worker process has one core for everything.

    `backend` is what scores, a native variant (avx512, avx2, baseline) or onnxruntime; `backend_reason` why not the native
    trees. Their sums are onnxruntime's to the last bit, and scores within a relative 1e-15.
    """

    def __init__(self, model: bytes, contract: Contract, kernels: str | None = None) -> None:
        """kernels: auto or off; without it SAKER_KERNELS, or auto. Raises `ModelRefused`, `ServingError` for another word."""
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
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or _is_not(inputs[0].shape[-1], width):
            found = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
            raise ModelRefused(f"model: expected one float32 input (n, {width}), as its contract says, got {found}")
        if isinstance(batch := inputs[0].shape[0], int):
            raise ModelRefused(
                f"model: its input takes a batch of {batch} and no other; convert it with an open first dimension (torch: "
                'dynamic_axes={"input": {0: "n"}}, tf2onnx: a first dimension of None)'
            )
        chosen = [o for o in outputs if o.name == contract.output and o.type in _FLOATS and len(o.shape) in (1, 2)]
        if not chosen:
            found = ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs)
            raise ModelRefused(f"model: expected an output {contract.output}, numbers (n,) or (n, k), got {found}")
        self.contract = contract
        self.proven = is_proven(model)
        self._input = inputs[0].name
        self._column = _column(contract, chosen[0].shape)
        self._native, self.backend_reason = self._open_native(model, kernels)
        self.backend = self._native.variant if self._native else "onnxruntime"
        if self._native:
            del self._run  # frees its memory, which the native trees do not need

    def _open_native(self, model: bytes, kernels: str | None) -> tuple[NativeTrees | None, str]:
        native, reason = load_native(mode_of(kernels))
        if native is None:
            return None, reason
        try:
            return NativeTrees(native, model, self.contract.output, self._column, self._ask), ""
        except Damaged as error:
            raise ModelRefused(f"model: {error}") from error
        except Refused as error:
            return None, f"the native trees do not take this model: {error}"

    def _ask(self, outputs: list[str], x: NDArray[np.float32]) -> list[Any]:
        """What onnxruntime makes of rows."""
        found: list[Any] = self._run.run(outputs, {self._input: x})
        return found

    @property
    def plan_and_program(self) -> tuple[_native.Plan, _native.Program] | None:
        """Of the native trees, where these two alone make the score."""
        return self._native.plan_and_program if self._native else None

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (n,) float64 of the rows `x` (n, f) float32, columns in the contract's order, NaN for missing."""
        if len(x) == 0:
            return np.empty(0)
        if self._native:
            return self._native.score(np.ascontiguousarray(x, np.float32))
        (scores,) = self._ask([self.contract.output], x)
        if self._column is not None:
            scores = scores[:, self._column]
        return np.ascontiguousarray(scores, np.float64)


def _is_not(dimension: int | str | None, size: int) -> bool:
    """Whether the file declares another size; a dimension may be open."""
    return isinstance(dimension, int) and dimension != size


def _column(contract: Contract, shape: list[int | str | None]) -> int | None:
    """The column of the output that is the score; None for an output (n,)."""
    if len(shape) == 1:
        return None
    if contract.column is None and shape[1] != 1:
        raise ModelRefused(
            f"model: its output {contract.output} has {shape[1] or 'several'} columns, and the contract does not say which is "
            "the score: write `column = 1`, say, into a features file (`saker models describe --help`)",
        )
    column = contract.column or 0
    if isinstance(shape[1], int) and not 0 <= column < shape[1]:
        raise ModelRefused(f"model: its output {contract.output} has {shape[1]} columns, the contract says column {column}")
    return column


def open_session(model: bytes | str | Path, kernels: str | None = None) -> Session:
    """Load an ONNX file or its bytes and prove it; raises `ModelRefused` with the reason when it may not serve.

    kernels: auto or off; without it SAKER_KERNELS, or auto.
    """
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    contract = read_contract(data)
    try:
        if others := external_tensors(data):
            raise ModelRefused(
                f"model: its tensor {others[0]!r} is in another file, which no SHA-256 and no signature covers: save it as one"
            )
        session = Session(data, contract, kernels)
        _prove(session, kernels)
    except SakerError:
        raise
    except Refused as error:
        raise ModelRefused(f"model: {error}") from error
    except Exception as error:  # whatever a damaged file makes of the code that reads it
        raise ModelRefused(f"model: its file is damaged ({type(error).__name__}: {error}); export it again") from error
    return session


def _prove(session: Session, kernels: str | None) -> None:
    golden = session.contract.golden
    if not golden:
        raise ModelRefused("model: its contract has no golden records, so nothing shows that it scores as trained")
    matrix = _decode_golden(session.contract, kernels)
    rows = np.array([g.row for g in golden], np.float32)
    if rows.shape != matrix.shape or not np.array_equal(matrix, rows, equal_nan=True):
        raise ModelRefused("model: its golden records decode to other rows than when it was trained")
    scores = session.score(matrix)
    expected = np.array([g.score for g in golden])
    difference = np.abs(scores - expected) / np.maximum(np.abs(expected), 1)
    if not (difference <= session.contract.tolerance).all():
        worst = int(np.nanargmax(np.where(np.isnan(difference), np.inf, difference)))
        raise ModelRefused(
            f"model: golden record {worst} must score {golden[worst].score!r} and scores {float(scores[worst])!r}",
        )


def _decode_golden(contract: Contract, kernels: str | None) -> NDArray[np.float32]:
    """The rows (n, f) of the golden records; with velocity features each after its own history."""
    golden = contract.golden
    batches = [[*one.history, one.record] for one in golden] if contract.velocity else [[one.record for one in golden]]
    rows = []
    for number, batch in enumerate(batches):
        decoder = Decoder(contract, kernels, history=history_of(contract, kernels))
        decoded = decoder.decode([record.encode() for record in batch])
        if decoded.rejections:
            first = decoded.rejections[0]
            at = number if contract.velocity else first.index
            raise ModelRefused(f"model: golden record {at} is rejected by its own contract: {first.message}")
        rows.append(decoded.matrix[-1:] if contract.velocity else decoded.matrix)
    return np.concatenate(rows)
