"""The kernels' `exp` is the C library's, as LightGBM's is. Another one differs in the last bit of one score in twenty, and a
linker takes another one as soon as any function of the compiler's runtime library is needed."""

from __future__ import annotations

import math

import numpy as np

from saker.engine import kernels
from saker.engine.kernels.onnx_reader.post_transform import ELEMENTWISE


def test_it_is_that_of_the_process() -> None:
    native, _ = kernels.native("auto")
    assert native is not None
    exponents = np.random.default_rng(0).normal(size=10_000) * 5
    instruction = np.array([ELEMENTWISE.index("Exp"), 0, 0, 0], np.int32)
    program = native.Program(instruction, np.empty(0), np.array([1], np.int32), 1, False)
    found = np.empty_like(exponents)
    program.run(exponents, found)
    assert found.tolist() == [math.exp(exponent) for exponent in exponents.tolist()]
