"""Trees to raw sums, in one run beside onnxruntime, LightGBM, lignum and lleaves: `python -m bench.trees S M L --batch 256,1`.

Microseconds of CPU a row, medians of interleaved rounds on one core; behind each peer how many times it takes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench.reference_models import SHAPES, ReferenceModel, reference_model
from bench.timing import medians, one_core
from engine.kernels import native
from engine.kernels.ensemble import ensemble_of
from engine.kernels.graph import read_graph
from engine.kernels.trees import TreeKernel

Score = Callable[[NDArray[np.float32]], Any]


def kernels(model: ReferenceModel) -> dict[str, Score]:
    extension, reason = native("auto")
    if extension is None:
        sys.exit(reason)
    ensemble, columns = ensemble_of(read_graph(model.onnx))
    return {variant: TreeKernel(extension, ensemble, columns, variant).score for variant in extension.variants()}


def _onnxruntime(model: ReferenceModel) -> Score:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(["raw"], {name: x})


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=SHAPES)
    parser.add_argument("--batch", default="256,1", help="rows a call, by comma")
    parser.add_argument("--peers", default=",".join(PEERS), help="by comma; lleaves compiles M for a minute and L for longer")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each line")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    one_core()
    for name in asked.models:
        model = reference_model(name)
        own = kernels(model)
        peers = {peer: PEERS[peer](model) for peer in asked.peers.split(",") if peer}
        for batch in map(int, asked.batch.split(",")):
            rows = np.ascontiguousarray(model.rows[:batch])
            calls = {who: lambda score=score, rows=rows: score(rows) for who, score in {**own, **peers}.items()}
            took = {who: t / batch for who, t in medians(calls, asked.seconds).items()}
            sys.stdout.write(f"{name}, batch {batch}: {', '.join(f'{who} {took[who]:.3f}' for who in own)} us a row\n")
            for who in peers:
                times = ", ".join(f"{variant} {took[who] / took[variant]:.1f}" for variant in own)
                sys.stdout.write(f"    {who} {took[who]:.3f}: times {times}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
