"""Random ensembles, of float64 and of float32: the operator's own sums to the last bit, by every variant and every way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from saker.engine.kernels.errors import Refused
from tests.support.examples import examples
from tests.support.random_ensembles import ALL_MODES, GT, GTE, LEQ, LT, MEMBER, Generated, Shape, generate, rows_for

Kernel = Any
SHAPES = st.builds(
    Shape,
    n_trees=st.integers(1, 12),
    n_leaves=st.sampled_from([1, 2, 3, 8, 9, 31, 32, 33, 63, 64, 65, 120]),
    n_features=st.integers(1, 40),
    n_targets=st.integers(1, 3),
    modes=st.lists(st.sampled_from(ALL_MODES), min_size=1, max_size=7, unique=True).map(tuple),
    splits=st.sampled_from(["grid", "edges", "normal"]),
    growth=st.sampled_from(["random", "chain", "even"]),
    mixed_targets=st.booleans(),
    average=st.booleans(),
    single=st.booleans(),
)


@pytest.fixture(scope="session")
def agree(kernel_of: Kernel, ways: list[dict[str, Any]]) -> Any:
    def check(made: Generated, x: NDArray[np.float32], sizes: tuple[int, ...] = ()) -> NDArray[np.float64]:
        """sizes: of further batches, each the first rows of x."""
        expected = made.expected(x)
        model = made.onnx()
        for way in ways:
            kernel = kernel_of(model, **way)
            for size in (len(x), *sizes):
                off = np.flatnonzero((kernel.score(x[:size]) != expected[:size]).any(axis=1))
                assert not len(off), (way, size, off[:5])
        return expected

    return check


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), n_rows=st.sampled_from([1, 2, 5, 31, 32, 33, 70]), shape=SHAPES)
def test_any_ensemble(agree: Any, seed: int, n_rows: int, shape: Shape) -> None:
    made = generate(seed, shape)
    agree(made, rows_for(made, n_rows, seed + 1))


@pytest.mark.parametrize("n_leaves", [127, 128, 255, 256, 257, 300, 700])
@pytest.mark.parametrize("growth", ["random", "chain", "even"])
@pytest.mark.parametrize("modes", [(LEQ,), ALL_MODES], ids=["leq", "all"])
def test_wide_trees(agree: Any, n_leaves: int, growth: str, modes: tuple[int, ...]) -> None:
    """A leaf number is a byte: 256 leaves fit, wider trees are walked, and both may stand side by side."""
    made = generate(n_leaves, n_trees=3, n_leaves=n_leaves, n_features=9, modes=modes, splits="normal", growth=growth)
    agree(made, rows_for(made, 70, 1))


@pytest.mark.parametrize("n_thresholds", [254, 255, 256, 511, 1200])
def test_many_thresholds_of_one_feature(agree: Any, n_thresholds: int) -> None:
    """A plane holds 255 ranks; a feature with more thresholds has several."""
    made = generate(n_thresholds, n_trees=n_thresholds // 40 + 1, n_leaves=60, n_features=1, modes=(LEQ,), growth="even")
    splits = np.linspace(-2, 2, len(made.arrays.splits))
    made.arrays.splits = np.random.default_rng(1).permutation(splits).tolist()
    agree(made, np.concatenate([rows_for(made, 400, 3), splits.astype(np.float32)[:, None]]))


def test_thresholds_and_their_neighbours(agree: Any) -> None:
    """Every threshold, and the float32 below and above it, for float64 thresholds that no float32 equals."""
    made = generate(5, n_trees=20, n_leaves=31, n_features=1, modes=(LEQ, LT, GTE, GT), splits="normal")
    on = np.array(made.arrays.splits, np.float32)
    x = np.concatenate([on, np.nextafter(on, np.float32(-np.inf)), np.nextafter(on, np.float32(np.inf))])[:, None]
    agree(made, np.ascontiguousarray(x))


@pytest.mark.parametrize("n_features", [60, 70, 120, 140, 250, 300])
@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("single", [False, True])
def test_many_planes_and_trees(agree: Any, kernel_of: Kernel, n_features: int, n_targets: int, single: bool) -> None:
    """Lanes hold a row's ranks in two, four or eight tables, and 64 trees; with more planes than 512 other ways are taken."""
    shape = Shape(130, 31, n_features, n_targets, modes=(LEQ,), average=n_targets == 1, single=single)
    made = generate(n_features, shape)
    agree(made, rows_for(made, 40, 40), sizes=(1, 2, 3, 4, 5, 16, 17))
    kernel = kernel_of(made.onnx())
    assert (kernel.ways["lanes"] > 0) == (kernel.variant == "avx512" and n_features < 300)


def test_the_most_planes(agree: Any, kernel_of: Kernel) -> None:
    """A treelet names up to 16,383 planes; what needs more is refused."""
    made = generate(9, n_trees=90, n_leaves=250, modes=(LEQ,))
    nodes = range(len(made.arrays.features))
    made.arrays.tracks = [0 for _ in nodes]
    for n_features, fits in ((16383, True), (16384, False)):
        assert len(nodes) >= n_features
        made.shape = replace(made.shape, n_features=n_features)
        made.arrays.features = [node % n_features for node in nodes]
        if fits:
            agree(made, rows_for(made, 17, 5))
        else:
            with pytest.raises(Refused, match="more than 16383 planes"):
                kernel_of(made.onnx())


@pytest.mark.parametrize("n_rows", [0, 1, 7, 64, 100, 255, 256, 257, 513, 1000])
def test_any_number_of_rows(agree: Any, n_rows: int) -> None:
    made = generate(7, n_trees=9, n_features=5, n_targets=2)
    agree(made, rows_for(made, n_rows, 2))


def test_columns_that_no_tree_reads(agree: Any) -> None:
    made = generate(8, n_leaves=10, n_features=2, modes=(LEQ,))
    made.shape = replace(made.shape, n_features=83)
    made.arrays.features = [f * 57 + 3 for f in made.arrays.features]
    agree(made, rows_for(made, 70, 2))


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("single", [False, True])
def test_onnxruntime_agrees(agree: Any, mode: int, n_targets: int, single: bool) -> None:
    import onnxruntime

    shape = Shape(15, 31, 4, n_targets, modes=(mode,), members=(-1.0, 40.0, 70000.0), single=single)
    made = generate(mode, shape)
    x = rows_for(made, 300, 3)
    if mode == MEMBER:  # onnxruntime 1.32 calls 2.5 a member of {2, 64} but not of {2, 5}: whole numbers only
        x = np.rint(x)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several add the trees in another order
    got = onnxruntime.InferenceSession(made.onnx(), options, providers=["CPUExecutionProvider"]).run(["raw"], {"x": x})[0]
    np.testing.assert_array_equal(got, agree(made, x))
