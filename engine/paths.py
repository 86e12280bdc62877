"""Paths: where in a record a value is. docs/reference/records.md, "Paths"

after.card.amount     the key `amount` of the object `card` of the object `after`
items[0].price        the first element of the array `items`
a\\.b                  the one key `a.b`; a backslash also escapes `[`, `]` and itself
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from saker.engine.errors import ModelRefused

#: Keys of objects, and indices of arrays.
Path = tuple[str | int, ...]

#: Most steps of a path: as deep as a record may nest.
MAX_STEPS = 64

_STEP = re.compile(r"\[(0|[1-9][0-9]{0,8})\]|(\.)?((?:[^\\.\[\]]|\\[\\.\[\]])+)")
_ESCAPED = re.compile(r"\\(.)")
_TO_ESCAPE = re.compile(r"([\\.\[\]])")


def parse_path(text: str) -> Path:
    """Raises `ModelRefused` for a text that is not a path."""
    steps: list[str | int] = []
    at = 0
    while at < len(text) or not steps:
        found = _STEP.match(text, at)
        # A dot separates a key from what precedes it, and nothing else.
        if found is None or (found[3] is not None and (found[2] is None) != (not steps)) or (not steps and found[1]):
            raise ModelRefused(
                f"path {text!r}: expected keys separated by dots, such as after.card.amount or items[0].price, got "
                f"{text[at:]!r}; write a dot or bracket that belongs to a key as \\. or \\["
            )
        steps.append(int(found[1]) if found[1] else _ESCAPED.sub(r"\1", found[3]))
        at = found.end()
    if len(steps) > MAX_STEPS:
        raise ModelRefused(f"path {text!r}: expected at most {MAX_STEPS} steps, got {len(steps)}")
    return tuple(steps)


def path_text(path: Path) -> str:
    """The text that `parse_path` reads as this path."""
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else ("." if out else "") + _TO_ESCAPE.sub(r"\\\1", step)
    return out


def check_paths(paths: Iterable[Path]) -> None:
    """Raises `ModelRefused` where one path needs a value that no record can have: an object that is a number, say."""
    kinds: dict[Path, tuple[str, Path]] = {}
    for path in paths:
        for depth in range(len(path) + 1):
            kind = "value" if depth == len(path) else "array" if isinstance(path[depth], int) else "object"
            known, by = kinds.setdefault(path[:depth], (kind, path))
            if known != kind:
                raise ModelRefused(
                    f"contract: {path_text(path[:depth])!r} cannot be an {kind} for {path_text(path)!r} and an {known} for "
                    f"{path_text(by)!r}".replace("an value", "a value")
                )


def place(record: dict[str, Any], path: Path, value: object) -> None:
    """Put the value where the path says, with the objects and arrays on the way; elements before it are null."""
    at: Any = record
    for step, after in zip(path, (*path[1:], None), strict=True):
        inner = value if after is None else [] if isinstance(after, int) else {}
        if isinstance(step, int):
            at.extend([None] * (step + 1 - len(at)))
        elif step not in at:
            at[step] = None
        if after is None or at[step] is None:
            at[step] = inner
        at = at[step]


def find(record: Any, path: Path) -> Any:
    """The value there, None without one."""
    for step in path:
        if isinstance(step, int):
            record = record[step] if isinstance(record, list) and step < len(record) else None
        else:
            record = record.get(step) if isinstance(record, dict) else None
    return record


def is_there(record: Any, path: Path) -> bool:
    """Whether the record has the path, be its value null or not."""
    *before, last = path
    parent = find(record, tuple(before))
    return (
        last < len(parent)
        if isinstance(last, int) and isinstance(parent, list)
        else isinstance(parent, dict) and last in parent
    )
