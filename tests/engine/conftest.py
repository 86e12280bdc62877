from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from saker.engine.kernels import Native, native
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.tree_kernel import TreeKernel

Ways = list[dict[str, Any]]


@pytest.fixture(scope="session")
def extension() -> Native:
    """Built by `make`: a test run without it would prove nothing."""
    module, reason = native("auto")
    assert module, reason
    return module


@pytest.fixture(scope="session")
def ways(extension: Native) -> Ways:
    """Arguments that make a kernel take each variant, and each way through it, and its own choice."""
    alone = {"walk_limit": 0, "lanes_limit": 0}
    each = [alone | {name: 2**31 - 1} for name in ("walk_limit", "lanes_limit")]
    blocks = [alone | {"rows_per_block": rows} for rows in (32, 64, 128, 256)]
    each += [block | {"wide": 0} for block in blocks]
    wide = [{"variant": "avx512", **block, "wide": 1} for block in blocks if "avx512" in extension.variants()]
    return [{"variant": variant, **way} for variant in extension.variants() for way in each] + wide + [{}]


Kernel = Callable[..., TreeKernel]


@pytest.fixture(scope="session")
def kernel_of(extension: Native) -> Kernel:
    """ONNX file's bytes -> kernel."""

    def build(model: bytes, **way: Any) -> TreeKernel:
        return TreeKernel(extension, *ensemble_of(read_graph(model)), **way)

    return build
