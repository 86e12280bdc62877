"""Compiles native/ into the extension next to this file: `python engine/kernels/build.py [--target MACHINE] [--sanitize]`.

    native/**/*.c --(each once; those of BY_VARIANT once for each instruction set)--> objects --> _native.abi3.so

The compiler is Zig's clang, from the wheel `ziglang`, so the machine needs no toolchain and the binary no newer
glibc than 2.17. The variable CC names another compiler (gcc or clang). setup.py calls this file, so it imports only
the standard library. --target aarch64 builds for that machine. A sanitized build needs a CC with sanitizers, and
ends the process at the first fault; `make sanitize` runs the tests on one.
"""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = HERE / "native"
OUTPUT = HERE / "_native.abi3.so"
# Sums must be LightGBM's, addition by addition: nothing is fused, and -ffast-math is never an option.
FLAGS = [
    "-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off",
    "-Wall", "-Wextra", "-Werror", "-Wno-unused-function",
]  # fmt: skip
SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-O1",  # compiled in a third of the time
    "-g",
    "--coverage",  # what the tests run of it; a count may be off where threads race, and whether it is 0 is what matters
    "-DROWS_EXACT_BUFFERS",
]
_AVX2 = ["-mavx2", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"]
_AVX512 = [
    *_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bitalg", "-mavx512vbmi",
    "-mprefer-vector-width=256",
]  # fmt: skip
VARIANTS: dict[str, dict[str, list[str]]] = {
    "x86_64": {"baseline": [], "avx2": _AVX2, "avx512": _AVX512},
    "aarch64": {"baseline": []},
}
#: Compiled once for each variant, under the name that the macro gives it.
BY_VARIANT = {
    "trees/score.c": "-DSCORE=score_{}",
    **dict.fromkeys(("rows/parse.c", "rows/avro.c", "rows/protobuf.c"), "-DROWS_VARIANT={}"),
}


class BuildError(RuntimeError):
    """The compiler is missing or does not take the sources."""


def build(output: Path, folder: Path, machine: str, *, sanitize: bool = False) -> Path:
    """Compile for `machine` (x86_64, aarch64) with objects in `folder`, and link `output`; raises `BuildError`."""
    if machine not in VARIANTS:
        raise BuildError(f"no native kernels for {machine}: expected {' or '.join(VARIANTS)}")
    for needed in (folder, output.parent):
        needed.mkdir(parents=True, exist_ok=True)
    (folder / "powers.h").write_text(runpy.run_path(str(NATIVE / "rows" / "make_powers.py"))["powers"]())
    compiler = _compiler(machine)
    flags = [*FLAGS, *(SANITIZE if sanitize else ["-g0"]), f"-I{folder}", f"-I{sysconfig.get_paths()['include']}"]
    jobs = []
    for source in sorted(NATIVE.rglob("*.c")):
        name = str(source.relative_to(NATIVE))
        macro = BY_VARIANT.get(name)
        stem = name.removesuffix(".c").replace("/", "_")
        if macro is None:
            jobs.append((source, folder / f"{stem}.o", flags))
        else:
            variants = VARIANTS[machine].items()
            jobs += [(source, folder / f"{stem}_{v}.o", [*flags, macro.format(v), *more]) for v, more in variants]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: _run([*compiler, *job[2], "-c", str(job[0]), "-o", str(job[1])]), jobs))
    link = SANITIZE if sanitize else ["-Wl,-s"]
    _run([*compiler, "-shared", *link, *(str(made) for _, made, _ in jobs), "-lm", "-ldl", "-o", str(output)])
    return output


def _compiler(machine: str) -> list[str]:
    """Name the plain target: Zig would otherwise tune for the building machine."""
    if "CC" in os.environ:
        return shlex.split(os.environ["CC"])
    cpu = "x86_64" if machine == "x86_64" else "generic"
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.2.17", f"-mcpu={cpu}"]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        raise BuildError(f"{' '.join(command[:4])} ... {command[-1]}: {told[-2000:]}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=platform.machine(), choices=sorted(VARIANTS))
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    folder = Path("build") / f"kernels-{asked.target}{'-sanitize' if asked.sanitize else ''}"
    sys.stdout.write(f"{build(asked.output, folder, asked.target, sanitize=asked.sanitize)}\n")


if __name__ == "__main__":
    main()
