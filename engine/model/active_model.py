"""Everything in a worker that depends on the model, as one frozen value."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from saker.engine.config import JSON_RESULTS, ResultSettings
from saker.engine.contract import Contract
from saker.engine.model.session import Session, open_session
from saker.engine.records.decode import Decoder, History
from saker.engine.records.encode import Encoder, Pieces
from saker.engine.records.formats import JSON, Format

if TYPE_CHECKING:
    from saker.engine.kernels import _native


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
    """What native/fast_path.c makes a result of a record with. pieces: of `Encoder`. history: of a model with velocity
    features.
    """

    decoder: _native.Decoder
    plan: _native.Plan
    program: _native.Program
    threshold: float
    pieces: Pieces
    history: tuple[_native.VelocityPlan, dict[int, _native.VelocityState]] | None


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """Everything that depends on the model, as one value: swapping a model swaps this."""

    name: str
    sha256: str
    session: Session
    decoder: Decoder
    encoder: Encoder

    @classmethod
    def load(
        cls,
        path: Path,
        name: str,
        kernels: str | None = None,
        records: Format = JSON,
        results: ResultSettings = JSON_RESULTS,
        history: Callable[[Contract], History | None] = lambda _: None,
    ) -> ActiveModel:
        """Open and prove the model in `path`; `name` (such as fraud/7) is what every result carries.

        kernels: auto or off; without it SAKER_KERNELS, or auto. records, results: how they are written. history: what a model
        with velocity features needs.
        """
        data = path.read_bytes()
        session = open_session(data, kernels)
        return cls.of(session, name, hashlib.sha256(data).hexdigest(), kernels, records, results, history(session.contract))

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
        history = self.decoder.history
        if decoder is None or scorer is None or (history is not None and history.native is None):
            return None
        of_history = None if history is None else history.native
        return NativeModel(decoder, *scorer, self.session.contract.threshold, self.encoder.pieces, of_history)

    @classmethod
    def of(
        cls,
        session: Session,
        name: str,
        sha256: str,
        kernels: str | None = None,
        records: Format = JSON,
        results: ResultSettings = JSON_RESULTS,
        history: History | None = None,
    ) -> ActiveModel:
        contract = session.contract
        encoder = Encoder(contract.id_field, contract.threshold, name, kernels, results)
        return cls(name, sha256, session, Decoder(contract, kernels, records, history=history), encoder)
