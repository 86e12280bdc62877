"""The fields that a contract reads, as a tree: what every decoder is built from, whatever the format of the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple, cast

from saker.engine.contract import UNITS, Contract, Feature
from saker.engine.paths import Path, parse_path, path_text


class Input(NamedTuple):
    """What a value of the record is to velocity features: the first word of `Layout` for it. per_second: of a time."""

    kind: Literal["time", "value", "identity"]
    word: int
    per_second: float = 1.0


@dataclass(slots=True)
class Field:
    """A value of the record: how messages name it, the columns and inputs that it feeds, and whether it is the identifier."""

    label: str
    path: Path
    columns: list[tuple[int, Feature]] = field(default_factory=list)
    is_identifier: bool = False
    inputs: list[Input] = field(default_factory=list)

    @property
    def required(self) -> bool:
        return any(feature.required for _, feature in self.columns)

    @property
    def first_required(self) -> float:
        """The first required column: missing fields are reported in this order."""
        return min((column for column, feature in self.columns if feature.required), default=float("inf"))


@dataclass(slots=True)
class Branch:
    """An object of the record, or an array, that a path goes through; the record itself at the top."""

    path: Path
    is_array: bool = False
    children: dict[str | int, Field | Branch] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return path_text(self.path)

    def label_of(self, key: str | int) -> str:
        """How messages name the value `key` in it: at the top the key as it is."""
        child = self.children.get(key)
        return child.label if isinstance(child, Field) else path_text((*self.path, key)) if self.path else str(key)

    def branches(self) -> Iterator[Branch]:
        """It and all below it, parents first."""
        yield self
        for child in self.children.values():
            if isinstance(child, Branch):
                yield from child.branches()

    def fields(self) -> Iterator[Field]:
        """All below it."""
        for child in self.children.values():
            if isinstance(child, Field):
                yield child
            else:
                yield from child.fields()


def field_tree(contract: Contract) -> Branch:
    """The record, with the fields that the contract reads below it."""
    top = Branch(())
    for column, feature in enumerate(contract.features):
        if feature.velocity is None:
            _field(top, feature.steps, feature.field).columns.append((column, feature))
    if (layout := contract.velocity_layout) is not None:
        if layout.time is not None:
            of_time = _field(top, parse_path(layout.time.path), layout.time.path)
            of_time.inputs.append(Input("time", 0, UNITS[layout.time.unit]))
        for number, path in enumerate(layout.values):
            _field(top, path, path_text(path)).inputs.append(Input("value", layout.value_word(number)))
        for number, path in enumerate(layout.identities):
            _field(top, path, path_text(path)).inputs.append(Input("identity", layout.identity_word(number)))
    _field(top, contract.id_steps, contract.id_path or contract.id_field).is_identifier = True
    return top


def _field(top: Branch, path: Path, label: str) -> Field:
    branch = top
    for depth, (step, after) in enumerate(pairwise(path), 1):  # the contract has checked which paths go together
        branch = cast("Branch", branch.children.setdefault(step, Branch(path[:depth], is_array=isinstance(after, int))))
    return cast("Field", branch.children.setdefault(path[-1], Field(label, path)))
