"""Bytes to bytes through the public pipeline (decode, score, encode), beside a straight loop: `python -m bench.pipeline S M L`.

Microseconds of CPU, medians of interleaved rounds on one core. The straight loop is what people write: orjson for each record,
one np.array, onnxruntime, orjson again; it checks nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import orjson

from bench.peers.straight import straight_loop
from bench.reference_models import SHAPES, ReferenceModel, reference_model
from bench.timing import medians, one_core
from engine.pipeline import ActiveModel, score_batch
from engine.session import open_session


def records(model: ReferenceModel, count: int) -> list[bytes]:
    """One JSON object for each of the model's rows, null for NaN."""
    names = [feature.name for feature in open_session(model.onnx, "off").contract.features]
    lines = []
    for number, row in enumerate(model.rows[:count].astype(np.float64).round(4).tolist()):
        values = [None if value != value else int(value) if value.is_integer() else value for value in row]  # noqa: PLR0124
        lines.append(orjson.dumps({"TransactionID": 2987000 + number, **dict(zip(names, values, strict=True))}))
    return lines


def active(model: ReferenceModel, kernels: str) -> ActiveModel:
    return ActiveModel.of(open_session(model.onnx, kernels), "fraud/7", "", kernels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=[name for name in SHAPES if name != "C"])
    parser.add_argument("--batch", default="256,16,1", help="records a call, by comma")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each line")
    asked = parser.parse_args()
    one_core()
    for name in asked.models:
        model = reference_model(name)
        native, loop = active(model, "auto"), straight_loop(model)
        for batch in map(int, asked.batch.split(",")):
            values = records(model, batch)
            calls: dict[str, Callable[[], object]] = {
                "saker": partial(score_batch, native, values),
                "straight loop": partial(loop, values),
            }
            took = medians(calls, asked.seconds)
            stages = ", ".join(f"{stage} {s * 1e6 / batch:.2f}" for stage, s in _stages(native, values).items())
            sys.stdout.write(
                f"{name}, batch {batch}: saker {took['saker'] / batch:.2f} us a record, {took['saker']:.1f} a call ({stages}; "
                f"{native.session.backend}); straight loop {took['straight loop'] / batch:.2f}, "
                f"{took['straight loop'] / took['saker']:.1f} times\n"
            )
            sys.stdout.flush()


def _stages(model: ActiveModel, values: list[bytes]) -> dict[str, float]:
    """Median seconds of a batch in each stage."""
    told = [score_batch(model, values).stage_seconds for _ in range(201)]
    return {stage: float(np.median([seconds[stage] for seconds in told])) for stage in told[0]}


if __name__ == "__main__":
    main()
