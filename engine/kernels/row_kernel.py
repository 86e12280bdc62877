"""The row kernel: records to rows of a matrix, for the contracts that it takes.

    Contract --_describe--> fields, columns, vocabularies --native/rows/decoder_type.c--> Decoder, which learns orders of fields

What it accepts or rejects is what records/reference_decoder.py would; whatever it does not know it hands over to that one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.contract import Contract, Feature
from saker.engine.kernels import Native, Values
from saker.engine.kernels.errors import Refused

# enum field_kind and enum target_kind of native/rows/rows.h
_NUMBER, _TEXT, _IDENTIFIER, _DERIVED = 1, 2, 3, 4
_TARGETS = {None: 0, "hour_of_day": 1, "day_of_week": 2}

HandOver = Callable[[int, int], tuple[int, int] | None]
Reject = Callable[[int, int, str | None], None]
Rewrite = Callable[[int, bytes], None]


class RowKernel:
    """Raises `Refused` for a contract that it does not take."""

    def __init__(self, native: Native, contract: Contract, variant: str | None = None) -> None:
        """variant: one of `native.variants()` instead of the best."""
        self.variant: str = variant or native.variants()[0]
        try:
            self._fields, descriptions = _field_table(contract)
            self.decoder = native.Decoder(
                variant=self.variant,
                width=len(contract.features),
                names=tuple(name.encode() for name in self._fields),
                fields=descriptions,
                identifier_slot=len(self._fields) - 1,
            )
        except ValueError as error:
            raise Refused(str(error)) from error

    def decode(
        self,
        values: Values,
        matrix: NDArray[np.float32],
        indices: NDArray[np.int32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        hand_over: HandOver,
        reject: Reject,
        rewrite: Rewrite,
    ) -> tuple[int, int]:
        """Fill a row of `matrix` (n, f), its index and the place of its identifier, for each accepted record.

        hand_over: index of a record, row -> (start, length) of its identifier, or None if it is rejected.
        reject: called with index, number of the fault and field of each record that is rejected here.
        rewrite: called with index and identifier of each record whose identifier is written with needless escapes.
        Returns how many were accepted, and how many of the batch were handed over. TypeError for other values than bytes.
        """

        def rejected(index: int, fault: int, slot: int, unknown: bytes | None) -> None:
            reject(index, fault, self._fields[slot] if slot >= 0 else None if unknown is None else unknown.decode())

        return self.decoder.decode(values, matrix, indices, starts, lengths, hand_over, rejected, rewrite)

    @property
    def statistics(self) -> dict[str, int]:
        """Counters since it was made, for measurements and tests: slow_walks, learned, exact_numbers, orders;
        and blank, the accepted records that have no feature."""
        return dict(self.decoder.statistics())


def _field_table(contract: Contract) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The record's fields with what native/rows has to know of each; the identifier last."""
    readers: dict[str, list[tuple[int, Feature]]] = {}
    for column, feature in enumerate(contract.features):
        readers.setdefault(feature.field, []).append((column, feature))
    if not readers:
        raise Refused("it has no features")
    if contract.id_field in readers:
        raise Refused(f"a feature reads the identifier {contract.id_field!r}")
    # The first missing required field is reported, so these are in the order of the required columns.
    width = len(contract.features)
    fields = sorted(readers, key=lambda name: min((c for c, feature in readers[name] if feature.required), default=width))
    descriptions = [_describe(readers[name]) for name in fields]
    return (*fields, contract.id_field), (*descriptions, (_IDENTIFIER, 1, -1, (), (), b"", 0.0))


def _describe(columns: list[tuple[int, Feature]]) -> tuple[Any, ...]:
    """kind, required, column, targets, vocabulary, its codes, code of any other text."""
    column, feature = columns[0]
    required = int(any(reader.required for _, reader in columns))
    if any(reader.kind == "category" for _, reader in columns):
        if len(columns) > 1:
            raise Refused(f"field {feature.field!r} is a category and read by another feature as well")
        codes = {text.encode(): code for code, text in enumerate(feature.vocabulary)}
        return (_TEXT, required, column, (), tuple(codes), np.array(list(codes.values()), np.float32).tobytes(), math.nan)
    targets = tuple((_TARGETS[reader.derivation], at) for at, reader in columns)
    if len(targets) == 1 and not feature.derivation:
        return (_NUMBER, required, column, (), (), b"", 0.0)
    return (_DERIVED, required, -1, targets, (), b"", 0.0)
