"""Settings of a client from one file, which an environment variable names: `NAME = VALUE` in each line.

A value `file:PATH` is the content of that file, `env:NAME` that of a variable. No value is ever printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from saker.engine.errors import ServingError


def read_properties(variable: str, allowed: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """None without the variable. allowed: how names begin. Raises `ServingError` with the place of what is wrong."""
    name = environment.get(variable)
    if not name:
        return {}
    path, settings = Path(name), {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ServingError(f"{variable}: cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        key, separator, value = (part.strip() for part in line.partition("="))
        if not line.strip() or key.startswith("#"):
            continue
        if not separator or not key.startswith(allowed):
            raise ServingError(
                f"{path}, line {number}: expected NAME = VALUE with a name that begins with {', '.join(allowed)}; "
                "all other settings are command options"
            )
        settings[key] = _secret(value, f"{path}, line {number}: {key}", environment)
    return settings


def _secret(value: str, where: str, environment: Mapping[str, str]) -> str:
    kind, _, name = value.partition(":")
    if kind == "env":
        if name not in environment:
            raise ServingError(f"{where}: environment variable {name} is not set")
        return environment[name]
    if kind == "file":
        try:
            return Path(name).read_text().strip()
        except OSError as error:
            raise ServingError(f"{where}: cannot read {name}: {error.strerror}") from error
    return value
