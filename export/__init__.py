"""Model to ONNX, exactly or not at all, the proof, and the registry. These names are the library interface.

Booster --source--> Ensemble --convert--> ModelProto --parity--> ParityReport --publish--> registry
"""

from __future__ import annotations

from export.convert import to_onnx
from export.errors import BrokenModel, ExportError, UnsupportedModel
from export.foreign import contract_for
from export.parity import check_parity
from export.report import ParityReport

__all__ = [
    "BrokenModel",
    "ExportError",
    "ParityReport",
    "UnsupportedModel",
    "check_parity",
    "contract_for",
    "to_onnx",
]
