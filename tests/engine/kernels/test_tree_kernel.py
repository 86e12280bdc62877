"""What a kernel takes, what it refuses and how, and that threads may share it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saker.engine.kernels import Native
from saker.engine.kernels.errors import Refused
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.tree_kernel import TreeKernel
from tests.support.memory import ALLOWED_MB, resident_mb
from tests.support.random_ensembles import EQ, GTE, LEQ, MEMBER, Arrays, Generated, generate, rows_for

KernelOf = Callable[..., TreeKernel]
Rows = NDArray[np.float32]


@pytest.fixture(scope="module")
def made() -> Generated:
    return generate(1, n_targets=2, modes=(LEQ, MEMBER))


@pytest.fixture(scope="module")
def kernel(made: Generated, kernel_of: KernelOf) -> TreeKernel:
    return kernel_of(made.onnx())


@pytest.fixture(scope="module")
def x(made: Generated) -> Rows:
    return rows_for(made, 300, 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, ">f4"])
def test_another_dtype_is_refused(kernel: TreeKernel, dtype: Any) -> None:
    with pytest.raises(TypeError, match="float32"):
        kernel.score(np.zeros((4, 6), dtype))


@pytest.mark.parametrize("shape", [(6,), (3, 5), (3, 7), (2, 3, 6), (0, 5)])
def test_another_shape_is_refused(kernel: TreeKernel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(n, 6\)"):
        kernel.score(np.zeros(shape, np.float32))


@pytest.mark.parametrize("strided", [np.asfortranarray, lambda x: x[::2], lambda x: x[:, ::-1], lambda x: x[::-1]])
def test_another_layout_is_refused(kernel: TreeKernel, x: Rows, strided: Callable[[Rows], Rows]) -> None:
    with pytest.raises((ValueError, BufferError), match="contiguous"):
        kernel.score(strided(x))


def test_an_unaligned_array_is_refused(kernel: TreeKernel) -> None:
    raw = np.zeros(4 * 6 * 4 + 1, np.uint8)
    with pytest.raises(ValueError, match="aligned"):
        kernel.score(raw[1:].view(np.float32).reshape(4, 6))


def test_a_refused_call_leaves_the_kernel_usable_and_the_rows_as_they_were(
    kernel: TreeKernel, made: Generated, x: Rows
) -> None:
    frozen = x.copy()
    frozen.flags.writeable = False
    for _ in range(3):
        with pytest.raises(TypeError):
            kernel.score(x.astype(np.float64))
        assert np.array_equal(kernel.score(frozen), made.expected(x))
    assert frozen.tobytes() == x.tobytes()


def _doubles(extension: Native, n_inputs: int = 1) -> Any:
    """The program a + a."""
    return extension.Program(np.zeros(4, np.int32), np.empty(0), np.array([n_inputs], np.int32), n_inputs, False)


@pytest.mark.parametrize("n_rows", [0, 1, 17, 300])
def test_a_program_makes_something_of_each_sum(extension: Native, kernel_of: KernelOf, n_rows: int) -> None:
    of_one = generate(2, n_targets=1)
    rows = rows_for(of_one, n_rows, 3)
    scores = kernel_of(of_one.onnx()).score(rows, _doubles(extension))
    assert np.array_equal(scores, 2 * of_one.expected(rows))


def test_what_is_no_program_of_one_sum_is_refused(extension: Native, kernel: TreeKernel, kernel_of: KernelOf, x: Rows) -> None:
    of_one = kernel_of(generate(2, n_targets=1).onnx())
    wrong: Any = object()
    for taken, program in ((of_one, wrong), (of_one, _doubles(extension, 2)), (kernel, _doubles(extension))):
        with pytest.raises(TypeError, match="one target"):
            taken.score(x, program)


def test_an_unknown_variant_is_named(made: Generated, kernel_of: KernelOf) -> None:
    with pytest.raises(Refused, match="sse9"):
        kernel_of(made.onnx(), variant="sse9")


def test_the_best_variant_is_taken(kernel: TreeKernel, extension: Native) -> None:
    assert kernel.variant == extension.variants()[0]
    assert extension.variants()[-1] == "baseline"


def test_threads_share_a_kernel(kernel: TreeKernel, made: Generated, x: Rows) -> None:
    """Calls that overlap use scratch memory of their own."""
    big = np.tile(x, (40, 1))
    expected = np.tile(made.expected(x), (40, 1))
    equal: list[bool] = []

    def work() -> None:
        equal.extend(np.array_equal(kernel.score(big), expected) for _ in range(60))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 240


def test_the_gil_is_released(kernel_of: KernelOf) -> None:
    """Another thread counts while one long call runs."""
    kernel = kernel_of(generate(1, n_trees=200, n_leaves=60, n_features=40).onnx(), variant="baseline")
    x = np.zeros((400_000, 40), np.float32)
    thread = threading.Thread(target=kernel.score, args=(x,))
    thread.start()
    counted = 0
    while thread.is_alive():
        counted += 1
    assert counted > 10_000


# ---- models that are refused


def test_every_cut_of_a_file_is_refused(made: Generated) -> None:
    data = made.onnx()
    for size in [*range(400), *range(400, len(data), 97)]:
        with pytest.raises(Refused):
            ensemble_of(read_graph(data[:size]))


def test_flipped_bytes_give_another_model_or_a_refusal(made: Generated, kernel_of: KernelOf) -> None:
    data, rng = made.onnx(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        noisy = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            noisy[at] = rng.integers(256)
        try:
            kernel_of(bytes(noisy))
        except Refused:
            refused += 1
    assert refused > 100


def _cycle(a: Arrays) -> None:
    a.true_ids[a.roots[1]], a.true_leafs[a.roots[1]] = a.roots[1], 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.true_ids.__setitem__(0, 10**6), "out of range"),
        (lambda a: a.true_ids.__setitem__(0, -1), "out of range"),
        (lambda a: a.roots.__setitem__(0, 10**6), "tree_roots"),
        (lambda a: a.features.__setitem__(0, 6), "feature 6"),
        (lambda a: a.features.__setitem__(0, -2), "negative"),
        (lambda a: a.modes.__setitem__(0, 9), "mode 9"),
        (lambda a: a.targets.__setitem__(0, 5), "leaf_targetids"),
        (lambda a: a.members.extend([1.0, np.nan]), "lists"),
        (lambda a: a.splits.__setitem__(a.modes.index(LEQ), np.nan), "NaN"),
        (lambda a: a.roots.__setitem__(1, a.roots[0]), "reached twice"),
        (_cycle, "twice"),
    ],
)
def test_a_broken_ensemble_is_named(kernel_of: KernelOf, change: Callable[[Arrays], None], text: str) -> None:
    made = generate(1, modes=(LEQ, GTE, EQ, MEMBER))
    change(made.arrays)
    with pytest.raises(Refused, match=text):
        kernel_of(made.onnx())


def test_models_come_and_go_without_leaking(extension: Native) -> None:
    """2,000 kernels, one at a time, built, used, refused: memory stays where it was."""
    ensemble, columns = ensemble_of(read_graph(generate(1, n_trees=40, n_leaves=60, n_targets=2).onnx()))
    broken = replace(ensemble, root=np.repeat(ensemble.root[:1], 2))

    def cycle() -> None:
        kernel = TreeKernel(extension, ensemble, columns)
        kernel.score(np.zeros((40, 6), np.float32))
        with pytest.raises(TypeError):
            kernel.score(np.zeros((40, 6)))  # type: ignore[arg-type]
        with pytest.raises(Refused):
            TreeKernel(extension, broken, columns)

    for _ in range(100):
        cycle()
    before = resident_mb()
    for _ in range(2000):
        cycle()
    assert resident_mb() - before < ALLOWED_MB


def test_reading_a_model_imports_neither_onnx_nor_onnxruntime() -> None:
    """A worker does not pay for them: 13 MB and 20 MB."""
    code = (
        "import sys; import saker.engine.kernels.tree_kernel, saker.engine.kernels.onnx_reader.post_transform; "
        "print({'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
