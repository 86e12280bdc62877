"""A mutation loop over the readers of model files: protobuf, metadata, contract, graph, trees, and the plan in C made of them.

`python -m tests.engine.model.fuzz [--seconds 20] [--seed S]`

Files of a few kinds of models are damaged at random and read as a pool reads them, and what is taken scores rows. Any error of
Python is a refusal, as in `open_session`; what must not be is a crash, a fault that the sanitizer sees (`make sanitize`,
`make fuzz`), or a file that takes longer than `_SLOWEST` seconds. Such a file is written to corpus/ and stays there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import onnx

from saker.engine.contract import read_contract
from saker.engine.kernels import native as load_native
from saker.engine.kernels.onnx_reader.ensemble import ensemble_of
from saker.engine.kernels.onnx_reader.graph import external_tensors, read_graph
from saker.engine.kernels.onnx_reader.legacy_ensembles import with_tree_ensemble
from saker.engine.kernels.onnx_reader.post_transform import tail_of
from saker.engine.kernels.tree_kernel import TreeKernel
from saker.engine.model.native_trees import hard_rows
from saker.engine.onnx_metadata import read_metadata
from saker.export.external_models import contract_for
from saker.export.onnx_writer.convert import to_onnx
from saker.export.proof.onnxmltools_check import onnxmltools_model
from saker.export.selfcheck.model_zoo import KINDS, N_FEATURES

CORPUS = Path(__file__).parent / "corpus"
_CHOSEN = ("binary", "multiclass", "categorical", "regression")
_SLOWEST, _WELL_FORMED = 20, 0.7
NUMBERS = [0, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def made() -> list[bytes]:
    found = []
    for name in (one for one in _CHOSEN if one in KINDS):
        booster = KINDS[name]()
        found.append(to_onnx(booster, contract_for(booster)).SerializeToString())
        with contextlib.suppress(Exception):  # a kind that onnxmltools does not convert
            found.append(onnxmltools_model(booster, N_FEATURES).SerializeToString())
    return found


def mutate(rng: random.Random, models: list[bytes]) -> bytes:
    model = bytearray(rng.choice(models))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(model) + 1)
        action = rng.choice(("change", "change", "bit", "number", "float", "remove", "copy", "splice", "cut"))
        if action == "change":
            model[at : at + 1] = bytes([rng.randrange(256)])
        elif action == "bit" and at < len(model):
            model[at] ^= 1 << rng.randrange(8)
        elif action == "number":
            model[at : at + rng.randrange(3)] = varint(rng.choice(NUMBERS))
        elif action == "float":
            model[at : at + 8] = rng.choice([b"\0" * 8, b"\xff" * 8, b"\0" * 6 + b"\xf0\x7f", rng.randbytes(8)])
        elif action == "remove":
            del model[at : at + rng.randint(1, 40)]
        elif action == "copy":
            start = rng.randrange(len(model) + 1)
            model[at:at] = model[start : start + rng.randint(1, 200)]
        elif action == "splice":
            other = rng.choice(models)
            model[at:] = other[rng.randrange(len(other)) :]
        else:
            del model[at:]
    return bytes(model)


def reworked(rng: random.Random, model: bytes) -> bytes:
    """With other numbers and names in well-formed places: most damaged bytes end at the first length that is wrong."""
    parsed = onnx.load_from_string(model)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        node = rng.choice(parsed.graph.node)
        attributes = [one for one in node.attribute if one.ints or one.floats or one.strings or one.HasField("t")]
        where = rng.choice(("attribute", "attribute", "attribute", "inputs", "operator", "initializer"))
        if where == "attribute" and attributes:
            _rework(rng, rng.choice(attributes))
        elif where == "inputs" and node.input:
            names = [name for other in parsed.graph.node for name in (*other.input, *other.output)]
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif where == "operator":
            node.op_type = rng.choice([other.op_type for other in parsed.graph.node])
        elif where == "initializer" and parsed.graph.initializer:
            _rework_tensor(rng, rng.choice(parsed.graph.initializer))
    return bytes(parsed.SerializeToString())


def _rework(rng: random.Random, attribute: onnx.AttributeProto) -> None:
    if attribute.HasField("t"):
        _rework_tensor(rng, attribute.t)
        return
    values: Any = attribute.ints or attribute.floats or attribute.strings
    at = rng.randrange(len(values))
    action = rng.choice(("other", "other", "odd", "remove", "double"))
    if action == "other":
        values[at] = values[rng.randrange(len(values))]
    elif action == "odd" and attribute.ints:
        values[at] = rng.choice([-1, -(2**63), *(number for number in NUMBERS if number < 2**63), rng.randrange(len(values))])
    elif action == "odd" and attribute.floats:
        values[at] = rng.choice([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 3e38])
    elif action == "remove":
        del values[at:]
    else:
        values.extend(list(values[at:]))


def _rework_tensor(rng: random.Random, tensor: onnx.TensorProto) -> None:
    raw = bytearray(tensor.raw_data)
    if raw and rng.random() < 0.8:
        size = rng.choice((1, 4, 8))
        at = rng.randrange(max(len(raw) // size, 1)) * size
        raw[at : at + size] = rng.choice([rng.randbytes(size), b"\xff" * size, b"\0" * size, bytes(raw[:size])])
        tensor.raw_data = bytes(raw)
    elif tensor.dims:
        tensor.dims[0] = rng.choice([-1, 0, 1, tensor.dims[0] + 1, 2**31, 2**62])


def read(model: bytes) -> str:
    """How far it comes."""
    native, reason = load_native("auto")
    assert native is not None, reason
    step = "metadata"
    try:
        read_metadata(model)
        step = "contract"
        contract = read_contract(model)
        step = "tensors"
        external_tensors(model)
        step = "graph"
        graph = with_tree_ensemble(read_graph(model))
        step = "ensemble"
        ensemble, columns = ensemble_of(graph)
        step = "plan"
        kernel = TreeKernel(native, ensemble, columns)
        step = "tail"
        tail = tail_of(native, graph, ensemble, contract.output, contract.column)
        step = "scores"
        rows = hard_rows(ensemble, columns)
        for count in (1, 7, len(rows)):
            tail(kernel.score(rows[:count]))
    except Exception:  # noqa: BLE001 - refused, whatever it is
        return step
    return "read"


@contextlib.contextmanager
def kept_where_it_ends(model: bytes) -> Iterator[None]:
    """A file that ends this process is found in corpus/ afterwards; one that takes too long ends it."""
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / f"{hashlib.sha256(model).hexdigest()[:12]}.onnx"
    path.write_bytes(model)

    def too_slow(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(f"not read in {_SLOWEST} s; kept in {path}")

    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(_SLOWEST)
    yield
    signal.alarm(0)
    path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    asked = parser.parse_args()
    rng, whole, reached = random.Random(asked.seed), made(), Counter[str]()
    models = whole + [path.read_bytes() for path in sorted(CORPUS.glob("*.onnx"))]
    until = time.monotonic() + asked.seconds
    while time.monotonic() < until:
        model = reworked(rng, rng.choice(whole)) if rng.random() < _WELL_FORMED else mutate(rng, models)
        with kept_where_it_ends(model):
            reached[read(model)] += 1
    told = ", ".join(f"{step} {count:,}" for step, count in reached.most_common())
    print(f"seed {asked.seed}: {reached.total():,} files, refused at {told}")  # noqa: T201 - it is what one wants to see


if __name__ == "__main__":
    main()
