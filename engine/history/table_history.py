"""Velocity features of records that are read once, in the order of their log: a table, golden records."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saker.engine import kernels
from saker.engine.contract import Contract
from saker.engine.history.reference import ReferenceState
from saker.engine.kernels import Values
from saker.engine.kernels.identity import NO_KEY
from saker.engine.kernels.velocity_kernel import native_plan

_LIMIT = 2 << 30


class TableHistory:
    """Fills the velocity features for `Decoder`. It belongs to one decoder, whose batches come in the order of the log.

    The records have no Kafka timestamps. Keys beyond 2 GB are dropped, those first that were not seen for the most records.
    """

    hash_key = NO_KEY
    native = None

    def __init__(self, contract: Contract, kernels_mode: str | None = None) -> None:
        """kernels_mode: auto or off; without it SAKER_KERNELS, or auto."""
        layout = contract.velocity_layout
        if layout is None:
            raise ValueError("expected a contract with velocity features")
        native, _ = kernels.native(kernels.mode_of(kernels_mode))
        self._native = native
        if native is None:
            self._reference = ReferenceState(layout)
        else:
            self._plan = native_plan(native, layout, len(contract.features), self.hash_key)
            self._state = native.VelocityState(self._plan, _LIMIT)

    def apply(
        self, inputs: NDArray[np.int64], matrix: NDArray[np.float32], _values: Values, _indices: NDArray[np.int32]
    ) -> None:
        """As `History.apply`."""
        if self._native is not None:
            self._native.velocity_apply(self._plan, {0: self._state}, inputs, matrix, len(matrix), None, None, None, None)
            return
        for at in range(len(matrix)):
            self._reference.apply(inputs[at], -1, matrix[at])

    @property
    def statistics(self) -> dict[str, int]:
        """keys, without_time (records without a usable event time), evicted (keys that were dropped)."""
        if self._native is None:
            return {"keys": self._reference.n_keys, "without_time": self._reference.without_time, "evicted": 0}
        return self._state.statistics()


def history_of(contract: Contract, kernels_mode: str | None = None) -> TableHistory | None:
    """What a decoder of the contract needs to read a table; None without velocity features."""
    return TableHistory(contract, kernels_mode) if contract.velocity else None
