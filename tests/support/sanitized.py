"""Puts the sanitized build of the kernels in the place of the installed one: `make sanitize` and `make fuzz`.

pytest -p tests.support.sanitized ...                  # as a plugin
python -m tests.support.sanitized MODULE [ARGUMENT]... # in front of a module
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

NAME = "saker.engine.kernels._native"
BUILT = Path(__file__).parents[2] / "build" / "sanitized" / "_native.abi3.so"

_spec = importlib.util.spec_from_file_location(NAME, BUILT)
if _spec is None or _spec.loader is None:
    sys.exit(f"{BUILT} is not there: `make sanitize` builds it")
sys.modules[NAME] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[NAME])

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
