"""The rooms of a package and the arrows between them: `python -m tests.support.import_graph [engine] [--of FOLDER]`.

A room is a module or a sub-package right below the package. An arrow leads from a room to one that it imports. The level of a
room is the length of the longest chain of arrows below it; rooms that import each other are on one level.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path


def arrows(folder: Path, package: str) -> dict[str, set[str]]:
    """Room -> rooms that it imports, in the tree below `folder`."""
    found: dict[str, set[str]] = {}
    for path in sorted((folder / package).rglob("*.py")):
        room = path.relative_to(folder / package).with_suffix("").parts[0]
        if room == "__init__":
            continue
        found.setdefault(room, set())
        for name in _imported(path):
            head, _, rest = name.removeprefix("saker.").partition(".")
            other = rest.partition(".")[0]
            inside = folder / package
            if head == package and other and other != room and ((inside / f"{other}.py").exists() or (inside / other).is_dir()):
                found[room].add(other)
    return found


def levels(graph: dict[str, set[str]]) -> list[list[str]]:
    """The rooms of each level, from the ground up."""
    level = dict.fromkeys(graph, 0)
    for _ in graph:  # a longest chain has no more rooms than there are
        for room, imported in graph.items():
            level[room] = max((level[other] + 1 for other in imported if room not in _reachable(graph, other)), default=0)
    return [[room for room in sorted(graph) if level[room] == at] for at in range(max(level.values()) + 1)]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for other in graph[left.pop()] - seen:
            seen.add(other)
            left.append(other)
    return seen


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", default="engine")
    parser.add_argument("--of", type=Path, default=Path(), help="the tree to look at; this one by default")
    asked = parser.parse_args()
    graph = arrows(asked.of, asked.package)
    by_level = levels(graph)
    for number, rooms in enumerate(by_level):
        sys.stdout.write(f"{number:2}  {', '.join(rooms)}\n")
    n_arrows = sum(map(len, graph.values()))
    sys.stdout.write(f"{asked.package}: {len(graph)} rooms, {n_arrows} arrows, {len(by_level)} levels\n")


if __name__ == "__main__":
    main()
