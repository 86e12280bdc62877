"""A parsed record, whatever its format: what the reference decoder walks through.

A value is None, bool, `str`, `Number`, `Time`, `Object`, a list (an array), or `Other`.
"""

from __future__ import annotations

from typing import Any

from saker.engine.records.rejection import Fault


class Number(str):
    """A number as JSON writes it, a type of its own to distinguish it from a string."""

    __slots__ = ()


class Object(list[tuple[str, Any]]):
    """An object as its fields in order, to see repeated ones."""


class Refused(Exception):
    """Leaves the walk through a record; never leaves the reference decoder."""

    def __init__(self, fault: Fault, field: str | None = None, where: int | None = None) -> None:
        super().__init__(fault)
        self.fault, self.field, self.where = fault, field, where
