"""Bytes to bytes through the public pipeline (decode, score, encode), next to a Python loop: `saker bench pipeline S M L`.

The loop is typical code: orjson for each record, one np.array, onnxruntime, orjson again; it checks nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from saker.bench.data.reference_models import SHAPES, ReferenceModel, records, reference_model
from saker.bench.micro.runner import Case
from saker.bench.peers.python_loop import python_loop
from saker.engine.model.active_model import ActiveModel
from saker.engine.model.registry import locate
from saker.engine.model.session import open_session
from saker.engine.pipeline import score_batch


def active(model: ReferenceModel, kernels: str) -> ActiveModel:
    return ActiveModel.of(open_session(model.onnx, kernels), "fraud/7", "", kernels)


def cases(models: Sequence[str], batches: Sequence[int], tracking_uri: str = "") -> Iterator[Case]:
    """models: reference models, each next to a Python loop; or models as for `saker serve`, next to each other."""
    if set(models) <= set(SHAPES):
        for name in models:
            model = reference_model(name)
            native, loop = active(model, "auto"), python_loop(model)
            for batch in batches:
                values = records(model, batch)
                group = f"pipeline {name}, batch {batch}"
                yield Case(group, "saker", partial(score_batch, native, values), batch, _stages(native, values))
                yield Case(group, "python loop", partial(loop, values), batch)
        return
    served = [ActiveModel.load(located.path, located.name) for located in (locate(name, tracking_uri) for name in models)]
    for batch in batches:
        for of in served:
            golden = itertools.cycle(one.record.encode() for one in of.session.contract.golden)
            values = list(itertools.islice(golden, batch))
            yield Case(f"pipeline, batch {batch}", of.name, partial(score_batch, of, values), batch, _stages(of, values))


def _stages(model: ActiveModel, values: list[bytes]) -> dict[str, float]:
    """Median us of a batch in each stage."""
    told = [score_batch(model, values).stage_seconds for _ in range(201)]
    return {stage: float(np.median([seconds[stage] for seconds in told])) * 1e6 for stage in told[0]}
