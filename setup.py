"""Builds the native kernels into the wheel; everything else is in pyproject.toml.

Where they cannot be built saker installs all the same, and runs on its reference paths.
"""

from __future__ import annotations

import os
import platform
import runpy
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("engine/kernels/native")
MACHINE = os.environ.get("SAKER_TARGET", platform.machine())  # SAKER_TARGET=aarch64: a wheel for another machine


class BuildKernels(build_ext):
    def build_extension(self, ext: Extension) -> None:
        built = runpy.run_path("engine/kernels/build.py")
        try:
            built["build"](Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp) / "kernels", MACHINE)
        except built["BuildError"] as error:
            self.warn(f"the native kernels were not built, saker will run on its reference paths: {error}")

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", os.sep) + ".abi3.so"


def options() -> dict[str, Any]:
    """One wheel for CPython 3.11 and later, and with Zig for every Linux with glibc 2.17."""
    wheel = {"py_limited_api": "cp311"}
    if "CC" not in os.environ:
        wheel["plat_name"] = f"manylinux_2_17_{MACHINE}"
    return {"bdist_wheel": wheel}


setup(
    ext_modules=[
        Extension(
            "saker.engine.kernels._native",
            sources=[str(path) for path in sorted(NATIVE.rglob("*.c"))],
            depends=[str(path) for path in sorted(NATIVE.rglob("*.[hp]*"))],  # headers, and what makes one
            py_limited_api=True,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
    options=options(),
)
