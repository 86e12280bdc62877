"""Whether the head is slower than a base: both built side by side, and run in turns, the base twice.

git worktree of BASE --+                          +-- correctness: all records, the same scores
                       +--> rounds of runs -------+-- judge.py: p99 and CPU a record, of the pipeline and end to end
this tree -------------+         ^                              |
                                 +-- once more, if slower ------+
"""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saker.bench.gate import judge
from saker.bench.gate.subject import BATCHES
from saker.bench.harness.contenders import Contender, model_file, saker
from saker.bench.harness.e2e import Run, load_values
from saker.bench.harness.open_loop import PARTITIONS
from saker.bench.harness.rate_search import Say, runner
from saker.deploy.local.stack import local_kafka, warm_up
from saker.engine.errors import SakerError

_RATE, _SECONDS, _WARM_UP_SECONDS = 5_000.0, 5.0, 1.5
_SIDES = ("base", "again", "head")
#: Where a revision keeps subject.py, and the module that it is: the second one before the packages moved below `saker`.
_SUBJECTS = {"bench/gate/subject.py": "saker.bench.gate.subject", "bench/subject.py": "bench.subject"}


class GateFailed(SakerError):
    """The head is slower, or gives something else; or the base cannot be measured."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A side of the comparison: the folder that its code is imported from, and the Python that has its dependencies."""

    folder: Path
    python: Path
    subject: str = "saker.bench.gate.subject"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}


def run(base: str, *, rounds: int, e2e_rounds: int, say: Say) -> list[judge.Verdict]:
    """All verdicts, failed ones among them. Raises `GateFailed` where the scores differ or records are lost."""
    with worktree(base, say) as base_tree:
        trees = {"base": base_tree, "again": base_tree, "head": Tree(Path.cwd(), Path(sys.executable))}
        verdicts = judge.confirmed(lambda: pipeline(trees, rounds, say), say)
        if e2e_rounds:
            verdicts += judge.confirmed(lambda: end_to_end(trees, e2e_rounds, say), say)
    return verdicts


@contextmanager
def worktree(revision: str, say: Say) -> Iterator[Tree]:
    """The tree of a revision, built; removed at the end. Raises `GateFailed` if there is no such revision or it has no gate."""
    with tempfile.TemporaryDirectory(prefix="saker-gate-") as scratch:
        folder = Path(scratch) / "base"
        _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
        try:
            subject = next((module for file, module in _SUBJECTS.items() if (folder / file).exists()), None)
            if subject is None:
                raise GateFailed(f"{revision} contains none of {', '.join(_SUBJECTS)}, so it cannot be compared")
            say(f"building {revision} in {folder}")
            yield _built(folder, Path(scratch) / "installed", subject)
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _built(folder: Path, installed: Path, subject: str) -> Tree:
    if filecmp.cmp(folder / "requirements" / "dev.txt", "requirements/dev.txt", shallow=False):
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "pip", "install", "--python", sys.executable, "--target", str(installed)]
        subprocess.run([*command, "--no-deps", "--no-build-isolation", str(folder)], check=True, capture_output=True)
        return Tree(installed, Path(sys.executable), subject)
    subprocess.run(["make", ".venv/.installed"], cwd=folder, check=True, capture_output=True)
    return Tree(folder, folder / ".venv" / "bin" / "python", subject)


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GateFailed(f"git {' '.join(arguments)}: {done.stderr.strip()}")


def pipeline(trees: dict[str, Tree], rounds: int, say: Say) -> Iterator[judge.Figure]:
    """Runs of saker.bench.gate.subject in turns. Raises `GateFailed` where the sides give different scores."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in _SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "records.jsonl"
        lines.write_bytes(b"\n".join(load_values()))
        for number in range(rounds):
            for side in _turns(number):
                tree = trees[side]
                command = [str(tree.python), "-m", tree.subject, str(model_file()), str(lines)]
                done = subprocess.run(
                    command, cwd=tree.folder, env=tree.environment(), capture_output=True, text=True, check=False
                )
                if done.returncode:
                    raise GateFailed(f"the pipeline of the {side} failed:\n{done.stderr}")
                found[side].append(json.loads(done.stdout))
    scores = {side: {(told["scores"], told["digest"]) for told in many} for side, many in found.items()}
    if len(set.union(*scores.values())) != 1:
        raise GateFailed(f"the base and the head give different scores, of {len(load_values())} records: {scores}")
    say(f"pipeline: {rounds} rounds, {len(load_values())} records with the same scores")
    for batch in BATCHES:
        for name in ("p99_us", "cpu_us"):
            sides = {side: [told["figures"][str(batch)][name] for told in many] for side, many in found.items()}
            yield judge.Figure(f"pipeline, batch of {batch}", name, **sides)
    if all("worst_ns_a_byte" in told for many in found.values() for told in many):  # an older base lacks it
        sides = {side: [told["worst_ns_a_byte"] for told in many] for side, many in found.items()}
        yield judge.Figure("decoder, worst record", "cpu_ns_a_byte", **sides)


def end_to_end(trees: dict[str, Tree], rounds: int, say: Say) -> Iterator[judge.Figure]:
    """`saker serve` of each side under the same open-loop load. Raises `GateFailed` where records are lost or scores wrong."""
    found: dict[str, list[Run]] = {side: [] for side in _SIDES}
    with local_kafka(PARTITIONS, lasting=True) as bootstrap_servers:
        warm_up(bootstrap_servers)
        measure = runner(bootstrap_servers, seconds=_SECONDS, warm_up_seconds=_WARM_UP_SECONDS, workers=1)
        contenders = {side: _contender(side, tree) for side, tree in trees.items()}
        for number in range(-1, rounds):  # the first does not count: a new broker compiles
            for side in _turns(number):
                told = measure(contenders[side], _RATE)
                say(told)
                if not told.whole:
                    raise GateFailed(
                        f"end to end, {side}: {told.lost} records lost, {told.wrong} of {told.checked} scores wrong"
                    )
                if number >= 0:
                    found[side].append(told)
    p99 = {side: [told.percentiles_ms["99"] for told in many] for side, many in found.items()}
    yield judge.Figure(f"end to end at {_RATE:,.0f}/s", "p99_ms", **p99)
    cpu = {side: [told.cpu_us for told in many] for side, many in found.items()}
    yield judge.Figure(f"end to end at {_RATE:,.0f}/s", "cpu_us", **cpu)


def _contender(side: str, tree: Tree) -> Contender:
    return saker(side, folder=tree.folder, python=tree.python)


def _turns(number: int) -> Sequence[str]:
    """Another order each time: what comes second in a round may have warmer caches, or less of the machine."""
    return _SIDES[number % 3 :] + _SIDES[: number % 3]
