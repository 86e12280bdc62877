"""How long consumers wait around a model change: `python -m saker.bench.scenarios.model_change`.

    steady load --> saker serve: two workers follow a file that changes repeatedly --> results

The broker stamps each result on arrival (LogAppendTime), in ms. Compared is the longest time between two results of a
partition: in the two seconds after each change, and in the two seconds before the next one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx

from saker.bench.data.reference_models import records, reference_model
from saker.bench.harness.contenders import Topics, running, saker
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka, warm_up
from saker.engine.kafka import admin
from saker.engine.kafka.reader import Record, read_topic
from saker.engine.kafka.replay import replay

_WINDOW_SECONDS, _APART_SECONDS = 2.0, 6.0
_WARM_UP_SECONDS = 10.0  # a broker that has just been started stops for up to a second at times


def longest_gap_ms(results: list[Record], since_ms: float, until_ms: float) -> float:
    """The longest time between two results of one partition."""
    times: dict[int, list[int]] = defaultdict(list)
    for result in results:
        if since_ms <= result.timestamp_ms <= until_ms:
            times[result.partition].append(result.timestamp_ms)
    return float(max(np.diff(sorted(of_one)).max() for of_one in times.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2_000, help="records per second")
    parser.add_argument("--changes", type=int, default=8)
    asked = parser.parse_args()
    model = onnx.load_from_string(reference_model("S").onnx)
    with tempfile.TemporaryDirectory() as folder, local_kafka(lasting=True) as bootstrap_servers:
        file = Path(folder) / "fraud.onnx"

        def put(number: int) -> None:
            model.doc_string = f"change {number}"
            new = file.with_suffix(".new")
            new.write_bytes(model.SerializeToString())
            new.replace(file)

        put(-1)
        create_topics(bootstrap_servers, 4, "-raw")
        admin.create_topics(bootstrap_servers, ["stamped"], 4, {"message.timestamp.type": "LogAppendTime"})
        warm_up(bootstrap_servers)
        topics = Topics(bootstrap_servers, f"{RAW}-raw", "stamped", REJECTED, SCORED)

        changed_at: list[float] = []

        def change() -> None:
            time.sleep(_WARM_UP_SECONDS)
            for number in range(asked.changes):
                time.sleep(_APART_SECONDS)
                changed_at.append(time.time() * 1000)
                put(number)

        with running(saker("saker", "--model", str(file), "--model-poll", "0.1"), topics, 2) as processes:
            while not _is_ready(processes.metrics_port or 0):
                time.sleep(0.1)
            values = records(reference_model("S"), 1024)
            seconds = _WARM_UP_SECONDS + _APART_SECONDS * asked.changes + 2 * _WINDOW_SECONDS
            count = int(asked.rate * seconds)
            thread = threading.Thread(target=change)
            thread.start()
            pairs = ((None, values[number % len(values)]) for number in range(count))
            replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.input, rate=asked.rate)
            thread.join()
            results = read_topic(bootstrap_servers, "stamped", count)
    window = 1000 * _WINDOW_SECONDS
    during = [longest_gap_ms(results, at, at + window) for at in changed_at]
    quiet = [longest_gap_ms(results, at - window, at) for at in changed_at]
    for name, gaps in (("with a change", during), ("without one", quiet)):
        sys.stdout.write(f"{name}: longest gap {max(gaps):.0f} ms, median of {len(gaps)} {statistics.median(gaps):.0f} ms\n")


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
