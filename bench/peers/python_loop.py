"""A no-op baseline, and the loops that people write: `poll`, `consume`, one call of the model, `produce_batch`.

    python -m saker.bench.peers.python_loop baseline|onnxruntime|lightgbm BOOTSTRAP_SERVERS INPUT OUTPUT GROUP

The baseline writes values as long as a result and does no work: the cost of Kafka and its Python client. All run with saker's
own settings of the clients, check nothing of a record, commit once in a while, and may lose or repeat records in a crash.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from saker.bench.data.reference_models import ReferenceModel, reference_model
from saker.bench.harness.produce import produce
from saker.engine.kafka import clients
from saker.engine.model.session import open_session

RESULT_BYTES = 110
BATCH = 1000

Score = Callable[[list[bytes]], list[bytes]]
Predict = Callable[[Any], list[float]]


def onnxruntime_predict(model: ReferenceModel) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(["score"], {name: x})[0].tolist()


def lightgbm_predict(model: ReferenceModel) -> Predict:
    import lightgbm

    booster = lightgbm.Booster(model_file=model.text)
    return lambda x: booster.predict(x, num_threads=1).tolist()


PREDICT = {"onnxruntime": onnxruntime_predict, "lightgbm": lightgbm_predict}


def python_loop(model: ReferenceModel, library: str = "onnxruntime") -> Score:
    """orjson for each record, one np.array, one call of the library, orjson again."""
    contract = open_session(model.onnx, "off").contract
    row, threshold = itemgetter(*(f.name for f in contract.features)), contract.threshold
    predict = PREDICT[library](model)

    def score(values: list[bytes]) -> list[bytes]:
        parsed: list[dict[str, Any]] = [orjson.loads(value) for value in values]
        scores = predict(np.array([row(record) for record in parsed], np.float32))
        now = time.time_ns() // 1_000_000
        return [
            orjson.dumps(
                {
                    "TransactionID": record["TransactionID"],
                    "fraud_score": score,
                    "is_fraud": score >= threshold,
                    "model": "fraud/7",
                    "scored_at_ms": now,
                }
            )
            for record, score in zip(parsed, scores, strict=True)
        ]

    return score


def run(who: str, bootstrap_servers: str, source: str, output: str, group: str) -> None:
    """Until it is killed."""
    score = None if who == "baseline" else python_loop(reference_model("S"), who)
    consumer = clients.consumer(bootstrap_servers, **{"group.id": group, "enable.auto.commit": True})
    producer = clients.producer(bootstrap_servers)
    value = b"x" * RESULT_BYTES
    consumer.subscribe([source])
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        messages = [m for m in [first, *consumer.consume(BATCH - 1, 0)] if m.error() is None]
        values = [value] * len(messages) if score is None else score([m.value() for m in messages])
        partitions: dict[int, list[dict[str, Any]]] = {}
        for message, result in zip(messages, values, strict=True):
            partitions.setdefault(message.partition(), []).append({"value": result, "key": message.key()})
        for partition, batch in partitions.items():
            produce(producer, output, batch, partition)
        producer.poll(0)


if __name__ == "__main__":
    run(*sys.argv[1:])
