"""Velocity features: what they are, and which values of a record they need. docs/explanation/velocity.md defines them.

Velocity (one feature) --layout_of--> Layout: inputs of a record, and what the kernels compute of them
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from saker.engine.errors import ModelRefused
from saker.engine.paths import Path, parse_path

#: In the order of enum velocity_function in native/velocity/velocity.h.
FUNCTIONS = (
    "count", "sum", "mean", "std", "min", "max", "last", "distinct", "seconds_since_last", "ratio_to_mean", "zscore",
)  # fmt: skip
#: Those that need no `of`.
_WITHOUT_VALUE = ("count", "seconds_since_last")
#: Hops in a window.
HOPS = 60
MOST_DISTINCT = 255
MAX_SCALE = 9
#: Beyond it a whole number is not exact in float64; such a value is missing.
LARGEST_VALUE = 2**53
#: Of an event time: from 1970 to the end of 2099, and at most so far ahead of the record's Kafka timestamp.
LATEST_MS = 4_102_444_800_000
AHEAD_MS = 3_600_000
#: An event time that is not there, among the inputs of a record.
NO_TIME = -(2**63)

_MINUTE_MS = 60_000
_SHORTEST_MS, _LONGEST_MS = _MINUTE_MS, 90 * 1440 * _MINUTE_MS
_UNITS_MS = {"ms": 1, "s": 1000, "m": _MINUTE_MS, "h": 60 * _MINUTE_MS, "d": 1440 * _MINUTE_MS}
_WINDOW = re.compile(r"([1-9][0-9]{0,12})(ms|s|m|h|d)")
#: A block of a key has to fit into a chunk of the native state.
MOST_FEATURES, MOST_PARTS = 256, 8


def parse_window(text: str) -> int:
    """Milliseconds of a window such as 90s, 1h or 30d. Raises `ModelRefused`."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ModelRefused(f"window {text!r}: expected a whole number with a unit of {', '.join(_UNITS_MS)}, such as 1h or 30d")
    return int(found[1]) * _UNITS_MS[found[2]]


def window_text(window_ms: int) -> str:
    """The shortest text that `parse_window` reads as this window."""
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if window_ms % _UNITS_MS[unit] == 0)
    return f"{window_ms // _UNITS_MS[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Velocity:
    """An aggregate over the earlier records of a key.

    by: paths whose values are the key. of: path of what is aggregated. scale: decimals of `of` that count.
    """

    by: tuple[str, ...]
    function: str
    window_ms: int
    of: str | None = None
    scale: int = 4

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise ModelRefused(f"function is {self.function!r}, expected one of {', '.join(FUNCTIONS)}")
        if not 1 <= len(self.by) <= MOST_PARTS or len(set(self.by)) < len(self.by):
            raise ModelRefused(f"by is {list(self.by)}, expected 1 to {MOST_PARTS} different paths")
        if (self.of is None) != (self.function in _WITHOUT_VALUE):
            raise ModelRefused(
                f"{self.function} takes no `of`, got {self.of!r}"
                if self.of is not None
                else f"{self.function} needs `of`, the path of what is aggregated"
            )
        if not _SHORTEST_MS <= self.window_ms <= _LONGEST_MS or self.window_ms % HOPS:
            raise ModelRefused(f"window is {self.window_ms} ms, expected 1m to 90d, and a multiple of {HOPS} ms")
        if not 0 <= self.scale <= MAX_SCALE:
            raise ModelRefused(f"scale is {self.scale}, expected 0 to {MAX_SCALE} decimals")

    @property
    def hop_ms(self) -> int:
        return self.window_ms // HOPS

    @property
    def paths(self) -> tuple[str, ...]:
        """All that it reads."""
        return (*self.by, self.of) if self.of is not None else self.by

    @property
    def takes_any_value(self) -> bool:
        """Whether `of` need not be a number."""
        return self.function == "distinct"


@dataclass(frozen=True, slots=True)
class EventTime:
    """Where the event time of a record is; unit: of a time that is a number, s, ms, us or ns."""

    path: str
    unit: str = "s"


@dataclass(slots=True)
class Group:
    """What a key keeps of each hop of one window.

    columns: (value, scale) -> which statistics are needed of it; see `NEEDS`. distinct: identities whose values are counted.
    """

    hop_ms: int
    columns: dict[tuple[int, int], int] = field(default_factory=dict)
    distinct: list[int] = field(default_factory=list)


#: Bits of what is kept of a value in a hop: how many and their sum, the sum of squares, the smallest and largest.
SUM, SQUARES, EXTREMES = 1, 2, 4
NEEDS = {
    "count": 0, "sum": SUM, "mean": SUM, "std": SUM | SQUARES, "min": EXTREMES, "max": EXTREMES, "last": 0, "distinct": 0,
    "seconds_since_last": 0, "ratio_to_mean": SUM, "zscore": SUM | SQUARES,
}  # fmt: skip


@dataclass(slots=True)
class KeySet:
    """The features with the same `by`: what is kept of a key. parts: identities that make it. last: (value, scale)."""

    parts: tuple[int, ...]
    groups: list[Group] = field(default_factory=list)
    last: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the matrix. group, item: of the key set, where its function looks."""

    column: int
    function: str
    key_set: int
    group: int
    item: int
    value: int
    scale: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Inputs of a record are words of 64 bits: the event time in ms (`NO_TIME`), a float64 for each of `values` (NaN), and
    two words for each of `identities` (zeros): a value with its type, hashed.
    """

    time: EventTime | None
    values: tuple[Path, ...]
    identities: tuple[Path, ...]
    key_sets: tuple[KeySet, ...]
    outputs: tuple[Output, ...]

    @property
    def n_words(self) -> int:
        return 1 + len(self.values) + 2 * len(self.identities)

    def value_word(self, value: int) -> int:
        return 1 + value

    def identity_word(self, identity: int) -> int:
        return 1 + len(self.values) + 2 * identity


def layout_of(features: Sequence[tuple[int, Velocity]], time: EventTime | None) -> Layout:
    """features: with their columns."""
    values: dict[Path, int] = {}
    identities: dict[Path, int] = {}
    key_sets: dict[tuple[int, ...], tuple[int, KeySet]] = {}
    outputs = []
    for column, one in features:
        parts = tuple(identities.setdefault(parse_path(path), len(identities)) for path in one.by)
        at, key_set = key_sets.setdefault(parts, (len(key_sets), KeySet(parts)))
        group_at = next((n for n, group in enumerate(key_set.groups) if group.hop_ms == one.hop_ms), len(key_set.groups))
        if group_at == len(key_set.groups):
            key_set.groups.append(Group(one.hop_ms))
        group = key_set.groups[group_at]
        value = item = -1
        if one.of is not None and one.takes_any_value:
            identity = identities.setdefault(parse_path(one.of), len(identities))
            item = _place(group.distinct, identity)
        elif one.of is not None:
            value = values.setdefault(parse_path(one.of), len(values))
            if one.function == "last":
                item = _place(key_set.last, (value, one.scale))
            else:
                item = (
                    list(group.columns).index((value, one.scale)) if (value, one.scale) in group.columns else len(group.columns)
                )
                group.columns[value, one.scale] = group.columns.get((value, one.scale), 0) | NEEDS[one.function]
        outputs.append(Output(column, one.function, at, group_at, item, value, one.scale))
    return Layout(time, tuple(values), tuple(identities), tuple(one for _, one in key_sets.values()), tuple(outputs))


def _place(items: list[Any], item: Any) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)
