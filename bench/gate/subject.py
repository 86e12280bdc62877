"""What `saker bench gate` runs in each of the trees that it compares, every time in a new process: the pipeline without Kafka.

    python -m saker.bench.gate.subject MODEL.onnx RECORDS.jsonl
        --> one line of JSON: a digest of all scores, and figures by batch

Each tree brings its own copy, so that a change of the engine's interface does not end the comparison.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from saker.bench.micro.runner import one_core
from saker.bench.micro.worst import worst
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch

BATCHES = (1, 16, 256)
_WARM_UP, _SECONDS = 100, 0.5


def figures(model: ActiveModel, values: list[bytes], batch: int) -> dict[str, float]:
    """p99 of a call on the wall, in us; median CPU of a record, in us."""
    batches = [values[i : i + batch] for i in range(0, len(values) - batch + 1, batch)]
    for number in range(_WARM_UP):
        score_batch(model, batches[number % len(batches)])
    walls, cpus = [], []
    until, number = time.monotonic() + _SECONDS, 0
    while time.monotonic() < until:
        chosen = batches[number % len(batches)]
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        score_batch(model, chosen)
        cpus.append(time.thread_time_ns() - cpu)
        walls.append(time.perf_counter_ns() - wall)
        number += 1
    return {"p99_us": float(np.percentile(walls, 99)) / 1000, "cpu_us": float(np.median(cpus)) / 1000 / batch}


def main(model_path: str, records: str) -> None:
    one_core()
    values = Path(records).read_bytes().splitlines()
    model = ActiveModel.load(Path(model_path), "fraud/1")
    told = [orjson.loads(result) for result in score_batch(model, values).results]
    scores = [(score["TransactionID"], score["fraud_score"], score["is_fraud"]) for score in told]
    found: dict[str, Any] = {"scores": len(scores), "digest": hashlib.sha256(repr(scores).encode()).hexdigest()}
    found["worst_ns_a_byte"] = worst()
    found["figures"] = {str(batch): figures(model, values, batch) for batch in BATCHES}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
