"""The definition of correct for velocity features, slow and plain. docs/explanation/velocity.md is the same in words.

It remembers every record of a key, so it is for tests, and for `--kernels off` on short streams.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saker.engine.velocity import AHEAD_MS, HOPS, LARGEST_VALUE, LATEST_MS, MOST_DISTINCT, Layout, Output


class _Record(NamedTuple):
    time: int
    inputs: tuple[int, ...]


class ReferenceState:
    """The history of one partition."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._keys: dict[tuple[int, tuple[int, ...]], list[_Record]] = {}
        self.without_time = 0

    @property
    def n_keys(self) -> int:
        return len(self._keys)

    def apply(self, inputs: NDArray[np.int64], timestamp_ms: int, row: NDArray[np.float32]) -> None:
        """Fill the velocity features of `row` (f,) of a record, and remember it. timestamp_ms: below 0 for none."""
        layout = self._layout
        words = tuple(int(word) for word in inputs)
        time = words[0] if layout.time is not None else timestamp_ms
        for output in layout.outputs:
            row[output.column] = math.nan
        if not 0 <= time < LATEST_MS or (timestamp_ms >= 0 and time > timestamp_ms + AHEAD_MS):
            self.without_time += 1
            return
        for number, key_set in enumerate(layout.key_sets):
            parts = [words[at : at + 2] for at in map(layout.identity_word, key_set.parts)]
            if (0, 0) in parts:
                continue
            earlier = self._keys.setdefault((number, tuple(word for part in parts for word in part)), [])
            for output in layout.outputs:
                if output.key_set == number:
                    hop_ms = key_set.groups[output.group].hop_ms
                    row[output.column] = np.float32(self._feature(output, hop_ms, earlier, _Record(time, words)))
            earlier.append(_Record(time, words))

    def _feature(self, output: Output, hop_ms: int, earlier: list[_Record], record: _Record) -> float:
        hop = record.time // hop_ms
        newest = max([hop, *(one.time // hop_ms for one in earlier)])
        history = [one for one in earlier if newest - HOPS < one.time // hop_ms <= hop]
        match output.function:
            case "count":
                return float(len(history))
            case "distinct":
                return float(self._distinct(output, hop_ms, earlier, newest))
            case "seconds_since_last":
                return (record.time - earlier[-1].time) / 1000 if earlier and earlier[-1] in history else math.nan
            case "last":
                with_value = [one for one in earlier if self._value(output, one) is not None]
                if not with_value or with_value[-1] not in history:
                    return math.nan
                return float(self._value(output, with_value[-1]) or 0) / float(10**output.scale)
        values = [value for one in history if (value := self._value(output, one)) is not None]
        return _of_values(output, values, self._value(output, record))

    def _value(self, output: Output, record: _Record) -> int | None:
        """Of its field in units of the scale."""
        word = record.inputs[self._layout.value_word(output.value)]
        value: float = struct.unpack("<d", struct.pack("<q", word))[0]
        scaled = value * float(10**output.scale)
        return round(scaled) if math.isfinite(scaled) and abs(round(scaled)) <= LARGEST_VALUE else None

    def _distinct(self, output: Output, hop_ms: int, earlier: list[_Record], newest: int) -> int:
        at = self._layout.identity_word(self._layout.key_sets[output.key_set].groups[output.group].distinct[output.item])
        values = {one.inputs[at : at + 2] for one in earlier if one.time // hop_ms > newest - HOPS}
        return min(len(values - {(0, 0)}), MOST_DISTINCT)


def _of_values(output: Output, values: list[int], own: int | None) -> float:  # noqa: PLR0911 - one case for each function
    n, total, power = len(values), sum(values), int(10**output.scale)
    match output.function:
        case "sum":
            return float(total) / power
        case "mean":
            return float(total) / float(n * power) if n else math.nan
        case "min":
            return min(values) / power if n else math.nan
        case "max":
            return max(values) / power if n else math.nan
        case "ratio_to_mean":
            return float(own * n) / float(total) if own is not None and total else math.nan
    deviation = _deviation(values)
    if output.function == "std":
        return deviation / power
    return float(own * n - total) / float(n) / deviation if own is not None and deviation > 0 else math.nan


def _deviation(values: list[int]) -> float:
    """The sample's standard deviation."""
    n, total = len(values), sum(values)
    if n < 2:  # noqa: PLR2004 - one value has none
        return math.nan
    return math.sqrt(float(n * sum(value * value for value in values) - total * total) / float(n * (n - 1)))
