"""Trees to raw sums, in one run with onnxruntime, LightGBM, lignum and lleaves: `saker bench trees S M L --batch 256,1`.

With `--converted`, the same trees as onnxmltools writes them, in float32, next to onnxruntime.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import lightgbm as lgb
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from saker.bench.data.reference_models import ReferenceModel, reference_model
from saker.bench.micro.runner import Case
from saker.engine.kernels import Native
from saker.engine.kernels import native as load_native
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import read_graph
from saker.engine.kernels.tree_kernel import TreeKernel
from saker.engine.model.native_trees import NativeTrees
from saker.export.proof.onnxmltools_check import onnxmltools_model

Score = Callable[[NDArray[np.float32]], Any]


def extension() -> Native:
    found, reason = load_native("auto")
    if found is None:
        sys.exit(reason)
    return found


def kernels(model: ReferenceModel) -> dict[str, Score]:
    native, (ensemble, columns) = extension(), ensemble_of(read_graph(model.onnx))
    return {variant: TreeKernel(native, ensemble, columns, variant).score for variant in native.variants()}


def _ask(onnx: bytes) -> Callable[[list[str], NDArray[np.float32]], list[Any]]:
    """What onnxruntime makes of rows: names of outputs, rows -> the outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda names, x: session.run(names, {name: x})


def _onnxruntime(model: ReferenceModel) -> Score:
    return partial(_ask(model.onnx), ["raw"])


def converted(model: ReferenceModel) -> dict[str, Score]:
    """The model as onnxmltools writes it, by the native trees and by onnxruntime."""
    onnx = onnxmltools_model(lgb.Booster(model_file=model.text), model.rows.shape[1]).SerializeToString()
    ask, output = _ask(onnx), "probabilities"
    trees = NativeTrees(extension(), onnx, output, 1, ask)
    return {trees.variant: trees.score, "onnxruntime": partial(ask, [output])}


def _lightgbm(model: ReferenceModel) -> Score:
    booster = lgb.Booster(model_file=model.text)
    return lambda x: booster.predict(x, raw_score=True, num_threads=1)


def _lignum(model: ReferenceModel) -> Score:
    import lignum

    peer = lignum.load(str(model.text))
    return lambda x: peer.predict(x, n_jobs=1)


def _lleaves(model: ReferenceModel) -> Score:
    import lleaves

    peer = lleaves.Model(model_file=str(model.text))
    peer.compile(raw_score=True)
    return lambda x: peer.predict(x, n_jobs=1)


PEERS: dict[str, Callable[[ReferenceModel], Score]] = {
    "onnxruntime": _onnxruntime,
    "LightGBM": _lightgbm,
    "lignum": _lignum,
    "lleaves": _lleaves,
}


def cases(
    models: Sequence[str], batches: Sequence[int], peers: Sequence[str] = tuple(PEERS), *, by_onnxmltools: bool = False
) -> Iterator[Case]:
    """The native variants and the peers; lleaves compiles M for a minute and L for longer."""
    for name in models:
        model = reference_model(name)
        calls = converted(model) if by_onnxmltools else kernels(model) | {peer: PEERS[peer](model) for peer in peers}
        for batch in batches:
            rows = [model.rows[at : at + batch] for at in range(0, len(model.rows) - batch + 1, batch)]
            for who, score in calls.items():
                yield Case(f"trees {name}, batch {batch}", who, _other_rows_each_time(score, rows), batch)


def _other_rows_each_time(score: Score, batches: Sequence[NDArray[np.float32]]) -> Callable[[], object]:
    """A call with the next batch: given the same row each time, the branch predictor would learn the path by heart."""
    return partial(next, map(score, itertools.cycle(batches)))
