"""What `saker export` writes of every kind of model: the native trees take it, and give onnxruntime's sums to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from saker.engine.contract import read_contract
from saker.engine.kernels import Native
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.tree_kernel import TreeKernel
from saker.engine.model.native_trees import hard_rows
from saker.engine.model.session import Session
from saker.engine.onnx_trees import SCORE_TOLERANCE
from saker.export.selfcheck.model_zoo import KINDS, rows_like_training, written

Trained = Callable[[str], Any]


@pytest.mark.parametrize("name", KINDS)
def test_its_sums(trained: Trained, extension: Native, ways: list[dict[str, Any]], name: str) -> None:
    model = written(trained(name)).SerializeToString()
    ensemble, columns = ensemble_of(read_graph(model))
    hard = [hard_rows(ensemble, columns, seed) for seed in range(10)]
    x = np.concatenate([rows_like_training(name, 7), *hard])

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several add the trees in another order
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    expected = session.run([ensemble.output], {session.get_inputs()[0].name: x})[0]
    for way in ways:
        np.testing.assert_array_equal(TreeKernel(extension, ensemble, columns, **way).score(x), expected, str(way))


@pytest.mark.parametrize("name", KINDS)
def test_its_scores(trained: Trained, extension: Native, name: str) -> None:
    model = written(trained(name)).SerializeToString()
    contract = read_contract(model)
    targets = ensemble_of(read_graph(model))[0].n_targets
    native, reference = (
        Session(model, replace(contract, column=1 if targets > 1 else None), kernels) for kernels in ("auto", "off")
    )
    assert (native.backend, native.backend_reason) == (extension.variants()[0], "")
    assert (reference.backend, reference.backend_reason) == ("onnxruntime", "kernels are off")
    x = rows_like_training(name, 7)
    scores = native.score(x)
    np.testing.assert_allclose(scores, reference.score(x), rtol=SCORE_TOLERANCE, atol=0)
    assert [native.score(row[None])[0] for row in x[:50]] == scores[:50].tolist()
