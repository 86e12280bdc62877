"""The models that the benches measure, made from a seed and kept in build/bench.

S, M, L: (features, trees, leaves); C: S with its last ten columns categorical. Of L a tenth of the
trees are trained, and the others are those with their thresholds moved: training all takes a quarter of an hour.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
import orjson
from numpy.typing import NDArray

from saker.engine.model.session import open_session
from saker.export.external_models import contract_for
from saker.export.onnx_writer.convert import to_onnx

SHAPES = {"S": (50, 200, 31), "M": (200, 500, 63), "L": (432, 1000, 255), "C": (50, 200, 31)}
CARDINALITIES = [4, 6, 10, 60, 100, 150, 500, 1000, 5000, 13000]  # of C's categories
FOLDER = Path("build") / "bench"
N_ROWS = 4096
_TRAINED = 40_000
_TRAINED_TREES = 100  # of L


class ReferenceModel(NamedTuple):
    """A model as LightGBM's text, as ONNX, and float32 rows (N_ROWS, f) to score, three tenths of them NaN."""

    text: Path
    onnx: bytes
    rows: NDArray[np.float32]


def reference_model(name: str) -> ReferenceModel:
    FOLDER.mkdir(parents=True, exist_ok=True)
    text, onnx = FOLDER / f"{name}.txt", FOLDER / f"{name}.onnx"
    if not onnx.exists():
        booster = _trained(name)
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:  # another process may want it at the same time
            booster.save_model(Path(scratch) / text.name)
            (Path(scratch) / onnx.name).write_bytes(to_onnx(booster, contract_for(booster)).SerializeToString())
            (Path(scratch) / text.name).replace(text)
            (Path(scratch) / onnx.name).replace(onnx)
    return ReferenceModel(text, onnx.read_bytes(), rows(name, N_ROWS, seed=1))


def rows(name: str, count: int, seed: int) -> NDArray[np.float32]:
    """Two thirds normal, one third rounded counts."""
    n_features = SHAPES[name][0]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, n_features)).astype(np.float32)
    x[:, ::3] = np.round(np.abs(x[:, ::3]) * 100)
    if name == "C":
        for column, cardinality in enumerate(CARDINALITIES, n_features - len(CARDINALITIES)):
            x[:, column] = np.floor(cardinality * rng.random(count) ** 3)  # a few frequent categories, many rare ones
    x[rng.random(x.shape) < 0.3] = np.nan  # noqa: PLR2004 - three tenths
    return x


def _trained(name: str) -> lgb.Booster:
    n_features, n_trees, n_leaves = SHAPES[name]
    trained_trees = _TRAINED_TREES if name == "L" else n_trees
    x = rows(name, _TRAINED, seed=0)
    rng = np.random.default_rng(1)
    filled = np.nan_to_num(x / (np.nanstd(x, axis=0) + 1e-6))
    signal = filled @ rng.normal(size=n_features) / np.sqrt(n_features) + filled[:, 1] * filled[:, 2]
    if name == "C":
        signal += np.sin(filled[:, -len(CARDINALITIES) :] * 37).sum(
            axis=1
        )  # the order of the categories carries no information
    y = signal + rng.normal(size=len(x)) > np.quantile(signal, 0.965)
    parameters = {"objective": "binary", "num_leaves": n_leaves, "learning_rate": 0.03, "num_threads": 1, "verbose": -1,
                  "min_data_in_leaf": 20, "seed": 1, "deterministic": True}  # fmt: skip
    categories = list(range(n_features - len(CARDINALITIES), n_features)) if name == "C" else "auto"
    booster = lgb.train(parameters, lgb.Dataset(x, y.astype(int), categorical_feature=categories), trained_trees)
    return booster if trained_trees == n_trees else _repeated(booster, n_trees, rng)


def _repeated(booster: lgb.Booster, n_trees: int, rng: np.random.Generator) -> lgb.Booster:
    """Repeat its trees, each time with other thresholds."""
    head, *blocks = re.split(r"(?=^Tree=\d+\n)", booster.model_to_string().split("end of trees")[0], flags=re.MULTILINE)
    trees = []
    for number in range(n_trees):
        block = re.sub(r"^Tree=\d+", f"Tree={number}", blocks[number % len(blocks)])
        trees.append(re.sub(r"(?<=^threshold=).*$", lambda m: _moved(m[0], rng), block, flags=re.MULTILINE))
    head = re.sub(r"^tree_sizes=.*$", f"tree_sizes={' '.join(str(len(t)) for t in trees)}", head, flags=re.MULTILINE)
    return lgb.Booster(model_str=head + "".join(trees) + "end of trees\n")


def _moved(thresholds: str, rng: np.random.Generator) -> str:
    values = np.array(thresholds.split(), np.float64)
    moved = values * (1 + rng.normal(scale=0.02, size=len(values)))
    return " ".join(repr(float(value)) for value in moved)


def records(model: ReferenceModel, count: int) -> list[bytes]:
    """One JSON object for each of the model's rows, null for NaN."""
    names = [feature.name for feature in open_session(model.onnx, "off").contract.features]
    lines = []
    for number, row in enumerate(model.rows[:count].astype(np.float64).round(4).tolist()):
        values = [None if value != value else int(value) if value.is_integer() else value for value in row]  # noqa: PLR0124
        lines.append(orjson.dumps({"TransactionID": 2987000 + number, **dict(zip(names, values, strict=True))}))
    return lines
