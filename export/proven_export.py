"""A model that has been proven, or none: convert, compare with the library, open as an engine would, then write the proof in.

Booster + Contract --to_onnx--> ModelProto --check_parity--> report --write_proof--> Proven
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from saker.engine.contract import Contract
from saker.engine.model.session import Session, open_session
from saker.export.errors import ParityError
from saker.export.model_card import model_card
from saker.export.onnx_writer.convert import to_onnx
from saker.export.onnx_writer.metadata import read_contract, read_facts, write_proof
from saker.export.proof.parity import check_parity
from saker.export.proof.report import ParityReport


@dataclass(frozen=True, slots=True)
class Proven:
    """The final file with its proof and model card, opened once as the engine opens it."""

    model: ModelProto
    data: bytes
    session: Session
    report: ParityReport
    card: str


def export_proven(
    booster: Any,
    contract: Contract,
    rows: NDArray[np.float32] | None = None,
    *,
    iterations: int | None = None,
    compare_onnxmltools: bool = False,
) -> Proven:
    """Export a model and prove it on rows made from it, and on `rows` (n, f) float32 if given.

    compare_onnxmltools: as `check_parity` takes it.

    Raises what `to_onnx` raises, `ParityError` with the whole report when the file does not score as the library does, and
    `ModelRefused` when an engine would not take it.
    """
    model = to_onnx(booster, contract, iterations=iterations)
    report = check_parity(booster, model, rows, compare_onnxmltools=compare_onnxmltools)
    if not report.passed:
        raise ParityError("parity", f"the exported model does not score as its library does\n{report.table()}")
    card = model_card(read_contract(model), read_facts(model), report)
    write_proof(model, report.to_json(), card)
    data = model.SerializeToString()
    return Proven(model, data, open_session(data), report, card)
