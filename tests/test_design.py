"""DESIGN.md has every file of the product, where it is."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("saker", "commands", "engine", "export", "training", "bench", "deploy", "dags")


def mapped() -> set[str]:
    text = (ROOT / "DESIGN.md").read_text().partition("## File map")[2]
    block = re.findall(r"```\n(.*?)```", text, re.DOTALL)[0]
    found, folder = set(), ""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            folder = line.split()[0]
        else:
            found |= {folder + name for name in re.findall(r"\b[\w]+\.(?:pyi|py|c|h)\b", line)}
    return found


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split() if name.endswith((".py", ".pyi", ".c", ".h")) and "__init__" not in name}


def test_the_file_map_is_the_tree() -> None:
    assert mapped() == tracked()


def test_every_package_is_installed() -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {str(Path(name).parent) for name in listed.split() if name.endswith("/__init__.py")} - {"dags", "saker"}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert found <= {name.removeprefix("saker.").replace(".", "/") for name in packages}
