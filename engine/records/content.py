"""A parsed record, whatever its format: what the reference decoder walks through.

A value is None, bool, str, `Number` (of these `Time`), float, bytes, `Object`, `Map`, or any other list, which is an array.
"""

from __future__ import annotations

from typing import Any

from saker.engine.records.rejection import Fault


class Number(str):
    """A number as JSON writes it; a subclass, to distinguish it from a string."""

    __slots__ = ()


class Time(Number):
    """A whole number that is a moment by its schema; without the schema, it is only the number."""

    __slots__ = ("seconds",)
    seconds: float

    def __new__(cls, value: int, seconds: float) -> Time:
        made = super().__new__(cls, value)
        made.seconds = seconds
        return made


class Moment(float):
    """Seconds since 1970."""

    __slots__ = ()


class Object(list[tuple[str, Any]]):
    """An object as its fields in order, to see repeated ones."""


class Map(Object):
    """An object whose keys are data: only those that a path names matter."""


class SchemaError(Exception):
    """A schema that cannot be used, and why."""


class Refused(Exception):
    """Leaves the walk through a record; never leaves the reference decoder."""

    def __init__(self, fault: Fault, field: str | None = None, where: int | None = None) -> None:
        super().__init__(fault)
        self.fault, self.field, self.where = fault, field, where
