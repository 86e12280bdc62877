"""A request a record to `mlflow models serve`: mlflow_serve.py BOOTSTRAP_SERVERS INPUT OUTPUT GROUP MODEL BOOSTER PORT.

Saves the Booster as MLflow does, starts the server on it, and ends with it. The connection is kept open.
"""

import http.client
import json
import math
import os
import subprocess
import sys
import time
from operator import itemgetter
from pathlib import Path

import lightgbm as lgb
import mlflow.lightgbm
import numpy as np
import orjson
from confluent_kafka import Consumer, Producer
from mlflow.models import infer_signature
from record import open_session, result

_START_SECONDS = 100


def saved(booster: str, names: list[str], folder: Path) -> Path:
    """The model in MLflow's format, with a tensor for its signature: columns take three times as long."""
    if not folder.exists():
        signature = infer_signature(np.zeros((1, len(names))), np.zeros(1))
        mlflow.lightgbm.save_model(lgb.Booster(model_file=booster), folder, signature=signature)
    return folder


def ask(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    """The answer; once more over a new connection when the server has closed this one, as it does after five quiet seconds."""
    for _ in range(2):
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            return connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
    raise SystemExit("the server does not answer")


def main(bootstrap_servers: str, source: str, output: str, group: str, model: str, booster: str, port: str) -> None:
    names = open_session(model)[1]
    row = itemgetter(*names)
    folder = saved(booster, names, Path(booster).with_suffix(".mlflow"))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "-p", port, "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where it searches for uvicorn
    server = subprocess.Popen(command, env={**os.environ, "PATH": path})
    connection = http.client.HTTPConnection("127.0.0.1", int(port))
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            connection.request("GET", "/ping")
            connection.getresponse().read()
            break
        except OSError:
            connection.close()
            time.sleep(0.1)
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest",
                         "fetch.wait.max.ms": 10})  # fmt: skip
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0, "acks": "all"})
    consumer.subscribe([source])
    while server.poll() is None:
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        record = orjson.loads(message.value())
        values = [math.nan if value is None else value for value in row(record)]
        body = json.dumps({"inputs": [values]}).encode()  # orjson has no NaN
        score = orjson.loads(ask(connection, body))["predictions"][0]
        producer.produce(output, result(record, score), message.key(), message.partition())
        producer.poll(0)


main(*sys.argv[1:])
