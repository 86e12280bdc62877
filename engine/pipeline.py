"""decode -> score -> encode: pure, no Kafka. `saker score` and the workers run the same."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.decode import Decoder, Values
from engine.encode import Encoder
from engine.rejection import Rejection
from engine.session import Session, open_session


class Backends(NamedTuple):
    """What scores and what decodes: a native variant (avx512, avx2, baseline), or onnxruntime and reference; and why.

    kafka: native or public, of a worker's transport.
    """

    trees: str
    rows: str
    reasons: tuple[str, ...]
    kafka: str = ""

    def on(self, kafka: str, reason: str) -> Backends:
        return self._replace(kafka=kafka, reasons=tuple(dict.fromkeys((*self.reasons, *filter(None, [reason])))))


class NativeModel(NamedTuple):
    """What native/express.c makes a result of a record with. pieces: of `Encoder`."""

    decoder: Any
    plan: Any
    program: Any
    threshold: float
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """Everything that depends on the model, as one value: swapping a model swaps this."""

    name: str
    sha256: str
    session: Session
    decoder: Decoder
    encoder: Encoder

    @classmethod
    def load(cls, path: Path, name: str, kernels: str | None = None) -> ActiveModel:
        """Open and prove the model in `path`; `name` (such as fraud/7) is what every result carries.

        kernels: auto or off; without it SAKER_KERNELS, or auto.
        """
        data = path.read_bytes()
        return cls.of(open_session(data, kernels), name, hashlib.sha256(data).hexdigest(), kernels)

    @property
    def backends(self) -> Backends:
        return Backends(
            self.session.backend,
            self.decoder.backend,
            tuple(dict.fromkeys(filter(None, (self.session.backend_reason, self.decoder.backend_reason)))),
        )

    @property
    def native(self) -> NativeModel | None:
        """None where a step of it is not native."""
        decoder, scorer = self.decoder.native, self.session.plan_and_program
        if decoder is None or scorer is None:
            return None
        return NativeModel(decoder, *scorer, self.session.contract.threshold, self.encoder.pieces)

    @classmethod
    def of(cls, session: Session, name: str, sha256: str, kernels: str | None = None) -> ActiveModel:
        contract = session.contract
        encoder = Encoder(contract.id_field, contract.threshold, name, kernels)
        return cls(name, sha256, session, Decoder(contract, kernels), encoder)


class Scored(NamedTuple):
    """`results[i]` is the encoded score of the record at `indices[i]` of the batch; the others are in `rejections`."""

    results: Sequence[bytes]
    indices: NDArray[np.int32]
    rejections: list[Rejection]
    #: Of the results (n,), and from which one on it is fraud.
    scores: NDArray[np.float64]
    threshold: float
    #: decode, score, encode; who delivers it adds what comes behind.
    stage_seconds: dict[str, float]


def score_batch(model: ActiveModel, values: Values, late: NDArray[np.bool_] | None = None) -> Scored:
    """Score raw records; every one of them is in the answer exactly once. late (n,): which are to be marked as late."""
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
    after_score = time.perf_counter()
    marks = None if late is None else late[ids.indices]
    results = model.encoder.encode(ids, scores, time.time_ns() // 1_000_000, marks)
    after_encode = time.perf_counter()
    seconds = {
        "decode": after_decode - started,
        "score": after_score - after_decode,
        "encode": after_encode - after_score,
    }
    return Scored(results, ids.indices, rejections, scores, model.session.contract.threshold, seconds)


def given_up(model: ActiveModel) -> Scored:
    """The answer to one record that is not even looked at, as workers died of it."""
    message = "workers died of it, twice when it was scored alone"
    rejection = Rejection(0, "worker_crash", message)
    return Scored([], np.empty(0, np.int32), [rejection], np.empty(0), model.session.contract.threshold, {})


def _not_finite(index: int, score: float) -> Rejection:
    message = f"expected a finite score, got {score}: does the model take missing values? If not, mark its features required"
    return Rejection(index, "not_finite", message)
