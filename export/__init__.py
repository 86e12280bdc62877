"""Booster to ONNX, the proof, and the registry. These names are the library interface."""

from __future__ import annotations

from export.booster import UnsupportedModel
from export.convert import to_onnx
from export.foreign import contract_for
from export.parity import ParityReport, check_parity

__all__ = ["ParityReport", "UnsupportedModel", "check_parity", "contract_for", "to_onnx"]
