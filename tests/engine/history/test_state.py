"""The native state: its limit, offsets that come again, long histories, and arguments that are wrong."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saker.engine import kernels
from saker.engine.history.reference import ReferenceState
from saker.engine.kernels.velocity_kernel import native_plan
from saker.engine.velocity import Velocity
from tests.engine.history.streams import START, Untouched, contract_of

NATIVE, _ = kernels.native("auto")
assert NATIVE is not None

COUNT = {"n": Velocity(("card",), "count", 3_600_000)}
ALL = {
    "n": Velocity(("card",), "count", 60_000),
    "sum": Velocity(("card",), "sum", 60_000, "amount", 0),
    "mean": Velocity(("card",), "mean", 60_000, "amount", 0),
    "std": Velocity(("card",), "std", 60_000, "amount", 0),
    "ratio": Velocity(("card",), "ratio_to_mean", 60_000, "amount", 0),
    "z": Velocity(("card",), "zscore", 60_000, "amount", 0),
    "min": Velocity(("card",), "min", 60_000, "amount", 0),
    "shops": Velocity(("card",), "distinct", 60_000, "shop"),
}


class Stream:
    """Inputs of records, made directly: the event time, a value where there is one, and identities of small numbers."""

    def __init__(self, features: dict[str, Velocity], times: Any, cards: Any, amounts: Any = 0.0, shops: Any = 1) -> None:
        contract = contract_of(features)
        layout = contract.velocity_layout
        assert layout is not None
        self.layout, self.width = layout, len(contract.features)
        self.inputs: NDArray[np.int64] = np.zeros((len(times), layout.n_words), np.int64)
        self.inputs[:, 0] = times
        for value in range(len(layout.values)):
            self.inputs[:, layout.value_word(value)].view(np.float64)[:] = amounts
        for number, path in enumerate(layout.identities):
            self.inputs[:, layout.identity_word(number)] = np.asarray(cards if path == ("card",) else shops) * 2**32 + 7
        assert NATIVE is not None
        self.plan = native_plan(NATIVE, layout, self.width, Untouched.hash_key)

    def part(self, which: slice) -> Stream:
        """Some of the records, for the same states."""
        part = copy(self)
        part.inputs = self.inputs[which]
        return part

    def state(self, limit: int = 1 << 24) -> Any:
        assert NATIVE is not None
        return NATIVE.VelocityState(self.plan, limit)

    def apply(self, state: Any, batch: int = 1000, offsets: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        assert NATIVE is not None
        matrix = np.zeros((len(self.inputs), self.width), np.float32)
        for start in range(0, len(matrix), batch):
            part = slice(start, start + batch)
            of_part = None if offsets is None else offsets[part]
            rows = matrix[part]
            NATIVE.velocity_apply(self.plan, {0: state}, self.inputs[part], rows, len(rows), None, None, None, of_part)
        return matrix[:, 1:]

    def expected(self) -> NDArray[np.float32]:
        state, matrix = ReferenceState(self.layout), np.zeros((len(self.inputs), self.width), np.float32)
        for row, inputs in zip(matrix, self.inputs, strict=True):
            state.apply(inputs, -1, row)
        return matrix[:, 1:]


def test_the_keys_that_were_not_used_for_longest_are_dropped() -> None:
    """10,000 cards, then the newest again, then the oldest: of these nothing is known any more."""
    cards = np.concatenate([np.arange(1, 10_001), [10_000, 1]])
    stream = Stream(COUNT, START + np.arange(len(cards)), cards)
    limit = 200_000
    states = [stream.state(limit), stream.state(limit)]
    first, second = stream.apply(states[0], 1), stream.apply(states[1], 777)
    assert np.array_equal(first, second)
    assert first[-2:, 0].tolist() == [1, 0]
    for state in states:
        found = state.statistics()
        assert found["bytes"] <= limit
        assert found["evicted"] == len(cards) - 1 - found["keys"]
        assert found["evicted_live"] == found["evicted"]


def test_dropped_keys_whose_window_has_passed_are_not_live() -> None:
    stream = Stream(COUNT, START + np.arange(10_000) * 3_600_000, np.arange(1, 10_001))
    state = stream.state(100_000)
    stream.apply(state)
    found = state.statistics()
    assert found["evicted"] > 0
    assert found["evicted_live"] == 0


def test_blocks_grow_shrink_and_move() -> None:
    """Few cards with long histories, many with short ones, and windows that pass: as the reference, and memory comes back."""
    rng = np.random.default_rng(0)
    times = START + np.cumsum(rng.choice([10, 1000, 100_000], 1200, p=[0.6, 0.38, 0.02]))
    stream = Stream(ALL, times, rng.choice([1, 2, 3, 4, 5], 1200), rng.normal(size=1200) * 1000, rng.integers(1, 40, 1200))
    assert np.array_equal(stream.apply(stream.state(), 64), stream.expected(), equal_nan=True)


def test_sums_beyond_64_and_128_bits() -> None:
    rng = np.random.default_rng(0)
    amounts = rng.choice([-1.0, 1.0, 1.0], 700) * 2.0**53 - rng.integers(0, 9, 700) * 2
    stream = Stream(ALL, START + np.arange(700), np.ones(700, np.int64), np.clip(amounts, -(2.0**53), 2.0**53))
    assert np.array_equal(stream.apply(stream.state()), stream.expected(), equal_nan=True)


def test_more_distinct_values_than_are_counted() -> None:
    """600 shops within a window, then a pause in which some of them leave it, and late records."""
    times = START + np.concatenate([np.arange(600) * 50, 60_000 + np.arange(60) * 400, 20_000 + np.arange(20) * 700])
    shops = np.concatenate([np.arange(1, 601), np.arange(300, 360), np.arange(700, 720)])
    stream = Stream(ALL, times, np.ones(len(times), np.int64), 1.0, shops)
    found = stream.apply(stream.state())
    assert found[:, -1].max() == 255
    assert np.array_equal(found, stream.expected(), equal_nan=True)


def test_a_record_that_comes_again_changes_nothing() -> None:
    stream = Stream(COUNT, START + np.arange(100), np.ones(100, np.int64))
    state, offsets = stream.state(), np.arange(100) * 3
    first = stream.apply(state, 10, offsets)
    newest = Stream(COUNT, START + np.arange(60, 100), np.ones(40, np.int64))
    newest.plan = stream.plan
    assert np.array_equal(newest.apply(state, 7, offsets[60:]), first[60:])
    assert state.statistics()["next_offset"] == 298
    with pytest.raises(LookupError, match="offset 0 is before 298"):
        stream.apply(state, 10, offsets)


def test_wrong_arguments_are_refused() -> None:
    assert NATIVE is not None
    stream = Stream(COUNT, START + np.arange(3), np.ones(3, np.int64))
    state, matrix, three = stream.state(), np.zeros((3, stream.width), np.float32), np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="matrix is too small"):
        NATIVE.velocity_apply(stream.plan, {0: state}, stream.inputs, matrix[:2], 3, None, None, None, None)
    with pytest.raises(IndexError, match="no record"):
        NATIVE.velocity_apply(stream.plan, {0: state}, stream.inputs, matrix, 2, None, None, None, None)
    with pytest.raises(IndexError, match="no record"):
        NATIVE.velocity_apply(stream.plan, {0: state}, stream.inputs, matrix, 3, three, three - 1, None, None)
    with pytest.raises(LookupError, match="partition 1 has no history"):
        NATIVE.velocity_apply(stream.plan, {0: state}, stream.inputs, matrix, 3, three + 1, three, None, None)
    with pytest.raises(ValueError, match="too small for the batch"):
        NATIVE.velocity_apply(stream.plan, {0: state}, stream.inputs, matrix, 3, None, None, three[:1], None)
    with pytest.raises(TypeError, match="of this plan"):
        NATIVE.velocity_apply(Stream(COUNT, [0], [1]).plan, {0: state}, stream.inputs, matrix, 3, None, None, None, None)
    assert state.statistics()["keys"] == 0
