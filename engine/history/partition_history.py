"""Velocity features of the records of a topic: each partition has a history of its records.

batch --Decoder--> inputs --PartitionHistory.apply--> columns of the matrix
                               |
                               v  partition -> state
                           `Histories`, which models with the same definition share
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from saker.engine import kernels
from saker.engine.contract import Contract
from saker.engine.history.reference import ReferenceState
from saker.engine.kernels import Values
from saker.engine.kernels.velocity_kernel import native_plan
from saker.engine.velocity import Layout

if TYPE_CHECKING:
    from saker.engine.kernels import _native


class Places(Protocol):
    """Records of a topic (engine/kafka/batch.py)."""

    def places(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64], /) -> None: ...


class ReferencePartition:
    """As the native VelocityState, without its limit and snapshots."""

    def __init__(self, layout: Layout, longest_ms: int, next_offset: int, complete_from_ms: int) -> None:
        self.history = ReferenceState(layout)
        self._next, self._complete_from, self._incomplete = next_offset, complete_from_ms, 0
        self._longest_ms, self._has_time = longest_ms, layout.time is not None

    def apply(self, inputs: NDArray[np.int64], offset: int, timestamp_ms: int, row: NDArray[np.float32]) -> None:
        """Raises LookupError for an offset that was applied before."""
        if offset < self._next:
            raise LookupError(f"offset {offset} is before {self._next}, up to which the state has the records")
        time = int(inputs[0]) if self._has_time else timestamp_ms
        self._incomplete += 0 <= time < self._complete_from + self._longest_ms
        self.history.apply(inputs, timestamp_ms, row)
        self._next = offset + 1

    def statistics(self) -> dict[str, int]:
        """As of the native state."""
        return {
            "keys": self.history.n_keys,
            "bytes": 0,
            "evicted": 0,
            "evicted_live": 0,
            "without_time": self.history.without_time,
            "incomplete": self._incomplete,
            "next_offset": self._next,
            "complete_from_ms": self._complete_from,
        }


#: Nothing is missing before it.
COMPLETE = -(2**63)


class Histories:
    """The histories of partitions by their numbers, of one definition. Belongs to one thread.

    `live` are those of `states` that have every record up to the committed offset: the fast path answers their records.
    """

    def __init__(self, definition: bytes) -> None:
        self.definition = definition
        self.states: dict[int, _native.VelocityState | ReferencePartition] = {}
        self.live: dict[int, _native.VelocityState | ReferencePartition] = {}

    def drop(self, partition: int) -> None:
        self.states.pop(partition, None)
        self.live.pop(partition, None)


class PartitionHistory:
    """Fills the velocity features for one `Decoder` from `histories`, whose owner puts states there and takes them away."""

    def __init__(
        self, contract: Contract, hash_key: bytes, limit: int, kernels_mode: str | None, histories: Histories | None
    ) -> None:
        """contract: of the model, within the records' envelope. limit: bytes of each partition. kernels_mode: auto or off.
        histories: those of an earlier model, used if they have the same definition.
        """
        self.contract, self.hash_key, self.limit = contract, hash_key, limit
        definition = contract.definition
        self.histories = histories if histories and histories.definition == definition else Histories(definition)
        layout = contract.velocity_layout
        if layout is None:
            raise ValueError("expected a contract with velocity features")
        self._layout = layout
        self._native, _ = kernels.native(kernels.mode_of(kernels_mode))
        self._plan = native_plan(self._native, layout, len(contract.features), hash_key, definition) if self._native else None

    @property
    def native(self) -> tuple[_native.VelocityPlan, dict[int, _native.VelocityState]] | None:
        """What the fast path needs of it."""
        return (self._plan, cast("dict[int, _native.VelocityState]", self.histories.live)) if self._plan else None

    def new_state(self, next_offset: int, complete_from_ms: int) -> _native.VelocityState | ReferencePartition:
        """An empty history. complete_from_ms: event time from which on it will have all records; `COMPLETE` for any."""
        if self._native is None or self._plan is None:
            return ReferencePartition(self._layout, self.contract.longest_window_ms, next_offset, complete_from_ms)
        return self._native.VelocityState(self._plan, self.limit, next_offset, complete_from_ms)

    def apply(self, inputs: NDArray[np.int64], matrix: NDArray[np.float32], values: Values, indices: NDArray[np.int32]) -> None:
        """As `History.apply`; values: a `ConsumedBatch`. Raises LookupError for a partition without a state."""
        n = len(values)
        partitions, offsets, timestamps = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64)
        cast("Places", values).places(partitions, offsets, timestamps)
        states = self.histories.states
        if self._native is not None:
            self._native.velocity_apply(self._plan, states, inputs, matrix, n, partitions, indices, timestamps, offsets)
            return
        for row, at in enumerate(indices.tolist()):
            state = cast("ReferencePartition", states[int(partitions[at])])
            state.apply(inputs[row], int(offsets[at]), int(timestamps[at]), matrix[row])
