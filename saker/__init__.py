"""Exact, loss-free, low-latency fraud scoring on Kafka: the public interface.

    import saker
    proven = saker.export_proven(booster, saker.contract_for(booster))  # export: proven.data is the file
    session = saker.open_session(proven.data)  # score
    scores = session.score(saker.Decoder(session.contract).decode(records).matrix)

A name is loaded when it is first used, so `import saker` loads neither numpy nor onnxruntime.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from saker.engine.contract import Contract, read_contract
    from saker.engine.errors import ModelRefused, SakerError
    from saker.engine.model.session import Session, open_session
    from saker.engine.records.decode import Decoded, Decoder
    from saker.engine.records.rejection import Rejection
    from saker.export.errors import BrokenModel, ExportError, ParityError, UnsupportedModel
    from saker.export.external_models import contract_for
    from saker.export.onnx_writer.convert import to_onnx
    from saker.export.proof.parity import check_parity
    from saker.export.proof.report import ParityReport
    from saker.export.proven_export import Proven, export_proven
    from saker.training.fit import Settings, Trained, train

__all__ = [
    "BrokenModel",
    "Contract",
    "Decoded",
    "Decoder",
    "ExportError",
    "ModelRefused",
    "ParityError",
    "ParityReport",
    "Proven",
    "Rejection",
    "SakerError",
    "Session",
    "Settings",
    "Trained",
    "UnsupportedModel",
    "check_parity",
    "contract_for",
    "export_proven",
    "open_session",
    "read_contract",
    "to_onnx",
    "train",
]

_MODULES = {
    "saker.engine.contract": ("Contract", "read_contract"),
    "saker.engine.errors": ("ModelRefused", "SakerError"),
    "saker.engine.model.session": ("Session", "open_session"),
    "saker.engine.records.decode": ("Decoded", "Decoder"),
    "saker.engine.records.rejection": ("Rejection",),
    "saker.export.errors": ("BrokenModel", "ExportError", "ParityError", "UnsupportedModel"),
    "saker.export.external_models": ("contract_for",),
    "saker.export.onnx_writer.convert": ("to_onnx",),
    "saker.export.proof.parity": ("check_parity",),
    "saker.export.proof.report": ("ParityReport",),
    "saker.export.proven_export": ("Proven", "export_proven"),
    "saker.training.fit": ("Settings", "Trained", "train"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("saker-onnx")  # written in pyproject.toml and nowhere else
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'saker' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
