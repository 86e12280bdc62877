"""For the peers that live in environments without saker: raw records to rows, as they would write it themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
import onnxruntime
import orjson

THRESHOLD = 0.5

Predict = Callable[[list[dict[str, Any]]], list[float]]


def open_session(path: str) -> tuple[Callable[[Any], Any], list[str]]:
    """float32 rows (n, f) to scores (n,) by onnxruntime, one thread; and the fields of a row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    contract = json.loads(session.get_modelmeta().custom_metadata_map["saker.contract"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(["score"], {name: x})[0], [feature["name"] for feature in contract["features"]]


def open_model(path: str) -> Predict:
    """Scores of parsed records."""
    run, names = open_session(path)
    row = itemgetter(*names)
    return lambda records: run(np.array([row(record) for record in records], np.float32)).tolist()


def result(record: dict[str, Any], score: float) -> bytes:
    return orjson.dumps({"TransactionID": record["TransactionID"], "fraud_score": score, "is_fraud": score >= THRESHOLD})
