"""Velocity features: the kernel, the reference and DuckDB have the same bits."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from saker.engine import kernels
from saker.engine.history.reference import ReferenceState
from saker.engine.kernels.velocity_kernel import native_plan
from saker.engine.records.decode import Decoder
from tests.engine.history.streams import FEATURES, START, Sent, Untouched, by_duckdb, contract_of, streams

KEY = Untouched.hash_key


def inputs_of(sent: list[Sent], kernel: str) -> tuple[Decoder, NDArray[np.float32], NDArray[np.int64]]:
    decoder = Decoder(contract_of(FEATURES), kernel, history=Untouched())
    decoded = decoder.decode([one.json(at) for at, one in enumerate(sent)])
    assert not decoded.rejections
    return decoder, decoded.matrix.copy(), decoded.inputs.copy()


def by_kernel(sent: list[Sent], batch: int, limit: int = 1 << 24) -> NDArray[np.float32]:
    native, _ = kernels.native("auto")
    assert native is not None
    decoder, matrix, inputs = inputs_of(sent, "auto")
    assert decoder.layout is not None
    plan = native_plan(native, decoder.layout, matrix.shape[1], KEY)
    state = native.VelocityState(plan, limit)
    timestamps = np.array([one.timestamp for one in sent], np.int64)
    for start in range(0, len(sent), batch):
        part = slice(start, start + batch)
        rows = matrix[part]
        native.velocity_apply(plan, {0: state}, inputs[part], rows, len(rows), None, None, timestamps[part], None)
    return matrix[:, 1:]


def by_reference(sent: list[Sent]) -> NDArray[np.float32]:
    decoder, matrix, inputs = inputs_of(sent, "off")
    assert decoder.layout is not None
    state = ReferenceState(decoder.layout)
    for at, one in enumerate(sent):
        state.apply(inputs[at], one.timestamp, matrix[at])
    return matrix[:, 1:]


def same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return np.array_equal(a, b, equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(streams(), st.integers(1, 20))
def test_kernel_reference_and_duckdb_have_the_same_bits(sent: list[Sent], batch: int) -> None:
    expected = by_duckdb(sent, FEATURES)
    for found in (by_reference(sent), by_kernel(sent, batch)):
        different = np.argwhere(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
        assert not len(different), [
            (int(row), list(FEATURES)[column], found[row, column], expected[row, column]) for row, column in different[:5]
        ]


@settings(deadline=None, max_examples=60)
@given(streams(150, with_timestamps=True), st.integers(1, 40))
def test_the_kernel_follows_the_reference(sent: list[Sent], batch: int) -> None:
    found, expected = by_kernel(sent, batch), by_reference(sent)
    different = np.argwhere(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
    assert not len(different), [
        (int(row), list(FEATURES)[column], found[row, column], expected[row, column]) for row, column in different[:5]
    ]


@pytest.mark.parametrize("scale_ms", [500, 20_000, 300_000, 4_000_000])
@pytest.mark.parametrize("keys", [1, 3])
def test_keys_with_few_records_get_many(keys: int, scale_ms: int) -> None:
    """A block changes its form with the seventeenth record; until then records that no window has any more are dropped."""
    random = Random(f"{scale_ms} {keys}")
    time, sent = START, []
    for _ in range(250):
        time += random.choice([0, 1, scale_ms, scale_ms, 10 * scale_ms, -3 * scale_ms])
        card, shop = random.randrange(keys), random.choice([None, *range(5)])
        amount = random.choice([None, round(random.uniform(-500, 500), 2), 10.0])
        sent.append(Sent(time, f"c{card}", shop, amount, random.choice([None, 0.5, 7.25])))
    found, expected = by_kernel(sent, 7), by_reference(sent)
    different = np.argwhere(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
    assert not len(different), [
        (int(row), list(FEATURES)[column], found[row, column], expected[row, column]) for row, column in different[:5]
    ]
    assert same(found, by_duckdb(sent, FEATURES))
