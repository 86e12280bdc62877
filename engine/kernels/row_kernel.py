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

from saker.engine.contract import UNITS, Contract, Feature
from saker.engine.field_tree import Branch, Field, field_tree
from saker.engine.kernels import Native, Values
from saker.engine.kernels.errors import Refused

# enum field_kind and enum target_kind of native/rows/rows.h
_NUMBER, _TEXT, _IDENTIFIER, _DERIVED, _KEY = 1, 2, 3, 4, 5
_TARGETS = {None: 0, "hour_of_day": 1, "day_of_week": 2, "seconds": 3}
_INPUT_TARGETS = {"value": 4, "time": 5}

HandOver = Callable[[int, int], bytes | None]
Reject = Callable[[int, int, str | None], None]
#: Operations, places, texts, where each text ends; and of each table its keys and the places of their programs.
NativeProgram = tuple[bytes, bytes, bytes, bytes, tuple[tuple[tuple[bytes, ...], tuple[int, ...]], ...]]
#: Tables, actions, finals, places, texts, where each text ends, keys of each map, number of cells.
NativeTables = tuple[bytes, bytes, bytes, bytes, bytes, bytes, tuple[tuple[bytes, ...], ...], int]
#: Of each message of a schema: its path in the file, and its tables.
NativeMessages = tuple[tuple[tuple[int, ...], NativeTables], ...]


class RowKernel:
    """Raises `Refused` for a contract that it does not take."""

    def __init__(
        self, native: Native, contract: Contract, variant: str | None = None, of_format: int = 0, hash_key: bytes = b""
    ) -> None:
        """variant: one of `native.variants()` instead of the best. of_format: `Format.native_number`. hash_key: of
        identities, where there are velocity features."""
        self.variant: str = variant or native.variants()[0]
        if not contract.features:
            raise Refused("it has no features")
        self.tree = field_tree(contract)
        # The first missing required field is reported, so these are in the order of the required columns.
        fields = sorted(self.tree.fields(), key=lambda field: field.first_required)
        self._branches = list(self.tree.branches())
        layout = contract.velocity_layout
        #: id of a field or branch of `tree` -> its number in programs.
        self.entries = {id(one): number for number, one in enumerate((*fields, *self._branches))}
        self._labels = [field.label for field in fields] + [branch.label for branch in self._branches]
        try:
            self.decoder = native.Decoder(
                variant=self.variant,
                width=len(contract.features),
                branches=_describe_branches(self._branches, self.entries),
                fields=tuple((int(field.required or field.is_identifier), _describe_uses(field)) for field in fields),
                identifier_slot=next(slot for slot, field in enumerate(fields) if field.is_identifier),
                record_format=of_format,
                n_inputs=layout.n_words if layout else 0,
                n_values=len(layout.values) if layout else 0,
                hash_key=hash_key,
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
        inputs: NDArray[np.int64],
        hand_over: HandOver,
        reject: Reject,
    ) -> tuple[int, int, bytes]:
        """Fill a row of `matrix` (n, f), its index, the place of its identifier and its inputs, for each accepted record.

        hand_over: index of a record, row -> its identifier, or None if it is rejected.
        reject: called with index, number of the fault and field of each record that is rejected here.
        Returns how many were accepted, how many of the batch were handed over, and the texts that `Identifiers` has. TypeError
        for other values than bytes.
        """

        def rejected(index: int, fault: int, entry: int, branch: int, unknown: bytes | None) -> None:
            if entry >= 0:
                reject(index, fault, self._labels[entry])
            else:
                reject(index, fault, None if unknown is None else self._branches[branch].label_of(unknown.decode()))

        return self.decoder.decode(values, matrix, indices, starts, lengths, inputs, hand_over, rejected)

    def add_schema(self, number: int, program: NativeProgram | NativeMessages | bool | None) -> None:
        """How records of a schema are read: by the program, as JSON (True), or by the reference (False). None: not known."""
        self.decoder.add_schema(number, program)

    @property
    def statistics(self) -> dict[str, int]:
        """Counters since it was made, for measurements and tests: slow_walks, learned, exact_numbers, orders;
        and blank, the accepted records that have no feature."""
        return dict(self.decoder.statistics())


def _describe_branches(branches: list[Branch], entries: dict[int, int]) -> tuple[Any, ...]:
    """Of each: is it an array, has it required fields, the branch that it is in, keys or indices, and their entries."""
    parents = {id(child): number for number, branch in enumerate(branches) for child in branch.children.values()}
    described = []
    for branch in branches:
        children = sorted(branch.children.items()) if branch.is_array else list(branch.children.items())
        keys = tuple(key if isinstance(key, int) else key.encode() for key, _ in children)
        needs = any(field.required or field.is_identifier for field in branch.fields())
        at = tuple(entries[id(child)] for _, child in children)
        described.append((branch.is_array, needs, parents.get(id(branch), 0), keys, at))
    return tuple(described)


def _describe_uses(field: Field) -> tuple[Any, ...]:
    """Of each use of the value: kind, column, targets, vocabulary, its codes, code of any other text."""
    uses: list[tuple[Any, ...]] = []
    targets = []
    for column, feature in field.columns:
        if feature.kind == "category":
            uses.append(_describe_category(column, feature))
        else:
            targets.append((_TARGETS[feature.derivation], column, UNITS[feature.unit or "s"]))
    targets += [(_INPUT_TARGETS[one.kind], one.word, one.per_second) for one in field.inputs if one.kind in _INPUT_TARGETS]
    if len(targets) == 1 and targets[0][0] == 0:
        uses.append((_NUMBER, targets[0][1], (), (), b"", 0.0))
    elif targets:
        uses.append((_DERIVED, -1, tuple(targets), (), b"", 0.0))
    if field.is_identifier:
        if uses:
            raise Refused(f"a feature reads the identifier {field.label!r}")
        uses.append((_IDENTIFIER, -1, (), (), b"", 0.0))
    uses += [(_KEY, one.word, (), (), b"", 0.0) for one in field.inputs if one.kind == "identity"]
    return tuple(uses)


def _describe_category(column: int, feature: Feature) -> tuple[Any, ...]:
    codes = {text.encode(): code for code, text in enumerate(feature.vocabulary)}
    return (_TEXT, column, (), tuple(codes), np.array(list(codes.values()), np.float32).tobytes(), math.nan)
