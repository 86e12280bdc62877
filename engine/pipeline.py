"""decode -> score -> encode: pure, no Kafka. `saker score` and the workers run the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels import Values
from saker.engine.model.active_model import ActiveModel
from saker.engine.records.rejection import Rejection

_NONE: Mapping[str, int] = MappingProxyType({})


class Scored(NamedTuple):
    """`results[i]` is the encoded score of the record at `indices[i]` of the batch.

    The others are in `rejections`, or `skipped`: how many by reason.
    """

    results: Sequence[bytes]
    indices: NDArray[np.int32]
    rejections: list[Rejection]
    #: Of the results (n,), and from which one on it is fraud.
    scores: NDArray[np.float64]
    threshold: float
    #: decode, score, encode
    stage_seconds: Mapping[str, float]
    skipped: Mapping[str, int] = _NONE


def score_batch(model: ActiveModel, values: Values, late: NDArray[np.bool_] | None = None) -> Scored:
    """Score raw records; each of them is in the answer, or counted as skipped, exactly once.

    late (n,): which are to be marked as late.
    """
    started = time.perf_counter()
    decoded = model.decoder.decode(values)
    after_decode = time.perf_counter()
    scores = model.session.score(decoded.matrix)
    ids, rejections = decoded.ids, decoded.rejections
    finite = np.isfinite(scores)
    if np.count_nonzero(finite) < len(scores):  # a quarter of the time of `all`
        # A network may make NaN of a missing value, an exponential may overflow; JSON has no word for either.
        rejections = rejections + [_not_finite(int(ids.indices[at]), float(scores[at])) for at in np.flatnonzero(~finite)]
        rejections.sort(key=lambda rejection: rejection.index)
        ids, scores = ids.chosen(finite), scores[finite]
    skipped = _NONE
    if rejections and model.decoder.skips_deletes:
        rejections, skipped = _without_deletes(values, rejections)
    after_score = time.perf_counter()
    marks = None if late is None else late[ids.indices]
    results = model.encoder.encode(ids, scores, time.time_ns() // 1_000_000, marks)
    after_encode = time.perf_counter()
    seconds = {
        "decode": after_decode - started,
        "score": after_score - after_decode,
        "encode": after_encode - after_score,
    }
    return Scored(results, ids.indices, rejections, scores, model.session.contract.threshold, seconds, skipped)


def rejected_unseen(model: ActiveModel, rejection: Rejection) -> Scored:
    """The answer to one record that is not even looked at."""
    return Scored([], np.empty(0, np.int32), [rejection], np.empty(0), model.session.contract.threshold, {})


def _without_deletes(values: Values, rejections: list[Rejection]) -> tuple[list[Rejection], Counter[str]]:
    kept, skipped = list[Rejection](), Counter[str]()
    for one in rejections:
        if one.reason == "deleted_row":
            skipped["deleted_row"] += 1
        elif one.reason == "empty_record" and values[one.index] is None:
            skipped["tombstone"] += 1
        else:
            kept.append(one)
    return kept, skipped


def _not_finite(index: int, score: float) -> Rejection:
    message = f"expected a finite score, got {score}: does the model take missing values? If not, mark its features required"
    return Rejection(index, "not_finite", message)
