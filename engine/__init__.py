"""The engine: contract, decoder, session and the workers. `open_session` and `Decoder` are the library interface.

Names are loaded when they are asked for: `import engine`, as the command line does, loads neither numpy nor
onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.contract import Contract, read_contract
    from engine.decode import Decoded, Decoder
    from engine.rejection import Rejection
    from engine.session import Session, open_session

__all__ = ["Contract", "Decoded", "Decoder", "Rejection", "Session", "open_session", "read_contract"]

_HOME = {
    "Contract": "contract",
    "Decoded": "decode",
    "Decoder": "decode",
    "Rejection": "rejection",
    "Session": "session",
    "open_session": "session",
    "read_contract": "contract",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"engine.{_HOME[name]}"), name)
