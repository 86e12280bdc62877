"""The native paths: trees and rows in C. `native()` loads them, or says why the reference paths run instead."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from saker.engine.errors import ServingError

ENVIRONMENT = "SAKER_KERNELS"
MODES = ("auto", "off")


def mode_of(asked: str | None = None) -> str:
    """auto or off: what was asked for, or SAKER_KERNELS, or auto. Raises `ServingError` for another word."""
    mode = asked or os.environ.get(ENVIRONMENT) or "auto"
    if mode not in MODES:
        raise ServingError(f"--kernels or {ENVIRONMENT}: expected {' or '.join(MODES)}, got {mode!r}")
    return mode


def native(mode: str) -> tuple[ModuleType | None, str]:
    """The extension, or None and why it is not used."""
    if mode == "off":
        return None, "kernels are off"
    try:
        return importlib.import_module("saker.engine.kernels._native"), ""
    except ImportError as error:
        return None, f"the native kernels are not installed ({error}); see engine/kernels/build.py"
