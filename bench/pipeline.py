"""Bytes to bytes through the public pipeline (decode, score, encode), beside a straight loop: `saker bench pipeline S M L`.

The straight loop is what people write: orjson for each record, one np.array, onnxruntime, orjson again; it checks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import orjson

from bench.peers.straight import straight_loop
from bench.reference_models import ReferenceModel, reference_model
from bench.stages import Case
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


def cases(models: Sequence[str], batches: Sequence[int]) -> Iterator[Case]:
    for name in models:
        model = reference_model(name)
        native, loop = active(model, "auto"), straight_loop(model)
        for batch in batches:
            values = records(model, batch)
            group = f"pipeline {name}, batch {batch}"
            yield Case(group, "saker", partial(score_batch, native, values), batch, _stages(native, values))
            yield Case(group, "straight loop", partial(loop, values), batch)


def _stages(model: ActiveModel, values: list[bytes]) -> dict[str, float]:
    """Median us of a batch in each stage."""
    told = [score_batch(model, values).stage_seconds for _ in range(201)]
    return {stage: float(np.median([seconds[stage] for seconds in told])) * 1e6 for stage in told[0]}
