"""Records to a float32 matrix. A record that cannot be scored is a rejection and leaves its neighbours alone.

    values --> native rows: accepted records straight into the matrix
                   | rejected, by the number of its fault                     --> Rejection
                   | not known: the reference decodes that record alone       --> row, or Rejection

A decoder belongs to one worker (one thread) and keeps its matrix, and the orders of fields that it has learned, from batch to
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from saker.engine.contract import Contract
from saker.engine.errors import ModelRefused
from saker.engine.kernels import Values, mode_of
from saker.engine.kernels import native as load_native
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.identity import NO_KEY, identify
from saker.engine.kernels.row_kernel import HandOver, Reject, RowKernel
from saker.engine.records.formats import JSON, Format, FormatReader
from saker.engine.records.header_ids import NAME, WithHeader, framed
from saker.engine.records.json_text import too_deep
from saker.engine.records.reference_decoder import Reference
from saker.engine.records.rejection import BY_NUMBER, DELETED, Rejection
from saker.engine.velocity import NO_TIME

if TYPE_CHECKING:
    from saker.engine.kernels import _native


class Identifiers(Sequence[bytes]):
    """The identifiers of the accepted records as JSON, as they were written (a string with its quotes), without copies.

    `starts` and `lengths` are bytes of `values[indices]`; a start below 0 is ~start in `texts`, for an identifier that its
    record has in another form. It keeps `values` alive, so unlike the matrix it stays valid. (Creating a frozen dataclass
    takes as long as decoding a record.)
    """

    __slots__ = ("indices", "lengths", "starts", "texts", "values")

    def __init__(
        self,
        values: Values,
        indices: NDArray[np.int32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        texts: bytes,
    ) -> None:
        self.values, self.indices, self.starts, self.lengths, self.texts = values, indices, starts, lengths, texts

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Identifiers: ...
    def __getitem__(self, at: int | slice) -> bytes | Identifiers:
        if isinstance(at, slice):
            return self.chosen(at)
        start, length = int(self.starts[at]), int(self.lengths[at])
        if start < 0:
            return self.texts[~start : ~start + length]
        return (self.values[int(self.indices[at])] or b"")[start : start + length]

    def chosen(self, which: slice | NDArray[np.bool_]) -> Identifiers:
        return Identifiers(self.values, self.indices[which], self.starts[which], self.lengths[which], self.texts)


class Decoded(NamedTuple):
    """A batch: `matrix` (n, f) float32 and `ids` are the accepted records, `indices` (n,) int32 their places in the batch.

    `matrix` is a view of the decoder's buffer: it is valid until the next `decode`. `handed_over` counts the records that the
    reference decoded.
    """

    matrix: NDArray[np.float32]
    ids: Identifiers
    indices: NDArray[np.int32]
    rejections: list[Rejection]
    handed_over: int
    #: (n, words) int64, see `Layout`: of each accepted record, valid as long as `matrix`.
    inputs: NDArray[np.int64]


class History(Protocol):
    """Earlier records, of which velocity features are made. hash_key: of identities (kernels/identity.py)."""

    @property
    def hash_key(self) -> bytes: ...
    @property
    def native(self) -> tuple[_native.VelocityPlan, dict[int, _native.VelocityState]] | None:
        """For the fast path: the plan, and the states of partitions by their numbers. None where it cannot be used."""

    def apply(
        self, inputs: NDArray[np.int64], matrix: NDArray[np.float32], values: Values, indices: NDArray[np.int32], /
    ) -> None:
        """Fill the columns of velocity features of accepted records (n, f), whose inputs are (n, words), and remember them.

        indices (n,): their places in `values`.
        """


class Decoder:
    """Turns raw records into the matrix that the contract describes. One matrix is allocated and used again."""

    def __init__(
        self,
        contract: Contract,
        kernels: str | None = None,
        of: Format = JSON,
        *,
        variant: str | None = None,
        history: History | None = None,
    ) -> None:
        """kernels: auto or off; without it SAKER_KERNELS, or auto. `backend` is then what decodes, and `backend_reason` why
        not the native rows. of: how the records are written. variant: one of the native ones instead of the best, for
        measurements and tests. history: for a contract with velocity features; raises `ModelRefused` without it.
        """
        if of.envelope is not None:
            contract = of.envelope.within(contract)
        self.contract, self.skips_deletes = contract, of.skip_deletes
        self._width = len(contract.features)
        self.layout, self.history = contract.velocity_layout, history
        if self.layout is not None and history is None:
            raise ModelRefused("model: it has velocity features, and nothing here reads the history that they need")
        hash_key = NO_KEY if history is None else history.hash_key
        self._matrix: NDArray[np.float32] = np.empty((0, self._width), np.float32)
        self._inputs: NDArray[np.int64] = np.empty((0, self.layout.n_words if self.layout else 0), np.int64)
        native, self.backend_reason = load_native(mode_of(kernels))
        self._reader = FormatReader(contract, of, too_deep if native is None else native.too_deep)
        self._reference = Reference(contract, self._reader.parse, identify(native, hash_key))
        self._native: RowKernel | None = None
        self._schemas = of.schemas
        self._may_be_unknown = of.schemas is not None or of.schema is not None
        if native is not None:
            try:
                self._native = RowKernel(native, contract, variant, of.native_number, hash_key)
            except Refused as error:
                self.backend_reason = f"the native rows do not take this contract: {error}"
        self.backend = self._native.variant if self._native else "reference"
        self._blank = self._told_blank = 0

    @property
    def native(self) -> _native.Decoder | None:
        """The extension's decoder, None without it."""
        return self._native.decoder if self._native else None

    def drain_blank(self) -> int:
        """How many of the accepted records since the last call had no feature at all: do the fields have other names there?"""
        total = self._blank + (self._native.statistics["blank"] if self._native else 0)
        found, self._told_blank = total - self._told_blank, total
        return found

    def _is_blank(self, inputs: NDArray[np.int64]) -> bool:
        """Whether a record has nothing for velocity features."""
        if self.layout is None:
            return True
        values = inputs[1 : 1 + len(self.layout.values)].view(np.float64)
        return inputs[0] == NO_TIME and bool(np.isnan(values).all()) and not inputs[1 + len(values) :].any()

    def unknown_schemas(self, values: Values) -> Sequence[tuple[int, int]]:
        """(index, id) of the records whose schemas have to be asked for before they can be decoded."""
        if not self._may_be_unknown:
            return ()
        values = self._framed(values)
        for number in self._reader.forget_unknown():
            if self._native is not None:
                self._native.add_schema(number, None)
        return self._native.decoder.unknown_schemas(values) if self._native else self._reader.unknown(values)

    def _framed(self, values: Values) -> Values:
        """Values that begin with the ids of their schemas, where a header has them."""
        with_header: WithHeader | None = getattr(values, "with_header", None)
        if self._schemas is None or with_header is None:
            return values
        return framed(values, with_header(NAME), self._schemas)

    def learn(self, schema: int) -> None:
        """Ask for the schema of this id. Raises `SakerError` where the registry does not answer."""
        learned = self._reader.learn(schema)
        self._may_be_unknown = self._schemas is not None
        if self._native is not None:
            self._native.add_schema(
                schema, learned.native(self._native.tree, self._native.entries) if learned is not None else False
            )

    def decode(self, values: Values) -> Decoded:
        """Decode a batch. Bad records never raise: each is in `rejections`, in the order of the batch.

        Raises `SakerError` where a record names a new schema and the registry does not answer.
        """
        batch = values
        if self._may_be_unknown:  # of a batch of one record each call below would be seen
            values = self._framed(values)
            for schema in {schema for _, schema in self.unknown_schemas(values)}:
                self.learn(schema)
        n = len(values)
        if n > len(self._matrix):
            room = max(n, 2 * len(self._matrix))
            self._matrix, self._inputs = (
                np.empty((room, self._width), np.float32),
                np.empty((room, self._inputs.shape[1]), np.int64),
            )
        indices, starts, lengths = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64)
        rejections: list[Rejection] = []

        def hand_over(index: int, row: int) -> bytes | None:
            found = self._reference.decode(index, values[index], self._matrix[row], self._inputs[row])
            if isinstance(found, Rejection):
                rejections.append(found)
                return None
            self._blank += bool(np.isnan(self._matrix[row]).all()) and self._is_blank(self._inputs[row])
            return found

        def reject(index: int, fault: int, field: str | None) -> None:
            rejections.append(BY_NUMBER[fault].of(index, field))

        decode = self._native.decode if self._native else _by_reference
        accepted, handed_over, texts = decode(values, self._matrix, indices, starts, lengths, self._inputs, hand_over, reject)
        if self.history is not None:
            self.history.apply(self._inputs[:accepted], self._matrix[:accepted], batch, indices[:accepted])
        ids = Identifiers(values, indices, starts, lengths, texts)
        if accepted < n:
            ids = ids[:accepted]
            for at, rejection in enumerate(rejections):
                if rejection.reason == "missing_field" and self._reader.is_delete(values[rejection.index]):
                    rejections[at] = DELETED.of(rejection.index)
        return Decoded(self._matrix[:accepted], ids, ids.indices, rejections, handed_over, self._inputs[:accepted])


def _by_reference(
    values: Values,
    _matrix: NDArray[np.float32],
    indices: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    _inputs: NDArray[np.int64],
    hand_over: HandOver,
    _reject: Reject,
) -> tuple[int, int, bytes]:
    """Every record handed over: `RowKernel.decode` without the kernel."""
    accepted, texts = 0, bytearray()
    for index in range(len(values)):
        if (identifier := hand_over(index, accepted)) is not None:
            indices[accepted], starts[accepted], lengths[accepted] = index, ~len(texts), len(identifier)
            texts += identifier
            accepted += 1
    return accepted, len(values), bytes(texts)
