"""decode -> score -> encode: pure, no Kafka. `saker score` and the workers run the same."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np

from engine.decode import Decoder, Rejection
from engine.encode import encode_scores
from engine.session import Session, open_session


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """Everything that depends on the model, as one value: swapping a model swaps this."""

    name: str
    sha256: str
    session: Session
    decoder: Decoder

    @classmethod
    def load(cls, path: Path, name: str, kernels: str | None = None) -> ActiveModel:
        """Open and prove the model in `path`; `name` (such as fraud/7) is what every result carries.

        kernels: auto or off; without it SAKER_KERNELS, or auto.
        """
        data = path.read_bytes()
        session = open_session(data, kernels)
        return cls(name, hashlib.sha256(data).hexdigest(), session, Decoder(session.contract))


@dataclass(frozen=True, slots=True)
class Scored:
    """`results[i]` is the encoded score of the record at `indices[i]` of the batch; the others are in `rejections`."""

    results: list[bytes]
    indices: list[int]
    rejections: list[Rejection]
    stage_seconds: dict[str, float] = field(default_factory=dict)


def score_batch(model: ActiveModel, values: Sequence[bytes | None]) -> Scored:
    """Score raw records; every one of them is in the answer exactly once."""
    started = time.perf_counter()
    decoded = model.decoder.decode(values)
    after_decode = time.perf_counter()
    scores = model.session.score(decoded.matrix)
    ids, indices, rejections = decoded.ids, decoded.indices, decoded.rejections
    finite = np.isfinite(scores)
    if not finite.all():
        # A network may make NaN of a missing value, an exponential may overflow; JSON has no word for either.
        rejections = rejections + [_not_finite(indices[at], float(scores[at])) for at in np.flatnonzero(~finite)]
        rejections.sort(key=lambda rejection: rejection.index)
        ids, indices = list(compress(ids, finite)), list(compress(indices, finite))
        scores = scores[finite]
    after_score = time.perf_counter()
    contract = model.session.contract
    results = encode_scores(
        ids,
        scores,
        id_field=contract.id_field,
        threshold=contract.threshold,
        model=model.name,
        scored_at_ms=time.time_ns() // 1_000_000,
    )
    after_encode = time.perf_counter()
    seconds = {
        "decode": after_decode - started,
        "score": after_score - after_decode,
        "encode": after_encode - after_score,
    }
    return Scored(results, indices, rejections, seconds)


def _not_finite(index: int, score: float) -> Rejection:
    message = f"expected a finite score, got {score}: does the model take missing values? If not, mark its features required"
    return Rejection(index, "not_finite", message)
