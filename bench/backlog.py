"""A backlog through one worker on a real Kafka, beside a bare echo and a straight loop: `python -m bench.backlog`.

    raw topic with 200,000 records of model S --> contender, one process --> output topic, watched from outside

Rate: from the first results that are seen to the last one. CPU: of the contender's process in that time. The echo writes values
as long as a result and does no work: what Kafka and its client cost. Medians of interleaved rounds, broker on the same cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.pipeline import records, straight_loop
from bench.reference_models import reference_model
from deploy.local.server import free_port
from deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka
from engine import kafka
from engine.kafka import TopicPartition

RESULT_BYTES = 110
BATCH = 1000
_PARTITIONS = 4
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    records_per_s: float
    cpu_us: float  # a record
    peak_mb: float


def fill(bootstrap_servers: str, count: int) -> None:
    producer = kafka.producer(bootstrap_servers)
    values = records(reference_model("S"), 4096)
    for number in range(count):
        while True:
            try:
                producer.produce(RAW, values[number % len(values)], partition=number % _PARTITIONS)
                break
            except BufferError:
                producer.poll(0.01)
        if number % BATCH == 0:
            producer.poll(0)
    producer.flush(60)


def loop(who: str, bootstrap_servers: str, source: str, output: str, group: str) -> None:
    """The echo or the straight loop, until it is killed: `poll`, `consume`, `produce_batch`, commits once in a while."""
    consumer = kafka.consumer(bootstrap_servers, **{"group.id": group, "enable.auto.commit": True})
    producer = kafka.producer(bootstrap_servers)
    score = straight_loop(reference_model("S")) if who == "straight loop" else None
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
            sent = 0
            while sent < len(batch):
                try:
                    sent += producer.produce_batch(output, batch[sent:], partition=partition)
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)


@contextmanager
def contender(who: str, bootstrap_servers: str, source: str, output: str, rejected: str, group: str) -> Iterator[int]:
    """Start it; the value is the identifier of the process that does the work, once there is one."""
    if who in ("echo", "straight loop"):
        command = ["-m", "bench.backlog", "--as", who, bootstrap_servers, source, output, group]
    else:
        path = Path(tempfile.gettempdir()) / f"saker-bench-{os.getpid()}.onnx"
        path.write_bytes(reference_model("S").onnx)
        command = ["-m", "saker", "serve", "--model", str(path), "--bootstrap-servers", bootstrap_servers, "--group", group]
        command += [
            "--input",
            source,
            "--output",
            output,
            "--rejected",
            rejected,
            "--metrics-port",
            str(free_port()),
            "--workers",
            "1",
        ]
        command += ["--kernels", "off" if who == "saker, kernels off" else "auto"]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    try:
        yield process.pid if "saker" not in command else _worker_of(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _worker_of(pool: int) -> int:
    children = Path(f"/proc/{pool}/task/{pool}/children")
    while True:
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.01)


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(who: str, bootstrap_servers: str, count: int, number: int) -> Measured:
    suffix = f"-{number}"
    create_topics(bootstrap_servers, _PARTITIONS, suffix)
    watcher = kafka.consumer(bootstrap_servers, **{"group.id": "watcher"})
    partitions = [TopicPartition(SCORED + suffix, p) for p in range(_PARTITIONS)]

    def seen() -> int:
        return sum(watcher.get_watermark_offsets(p, timeout=10)[1] for p in partitions)

    with contender(who, bootstrap_servers, RAW, SCORED + suffix, REJECTED + suffix, f"group{suffix}") as process:
        while not (first := seen()):
            time.sleep(0.005)
        started, cpu = time.monotonic(), cpu_seconds(process)
        while (now := seen()) < count:
            time.sleep(0.005)
        seconds, cpu = time.monotonic() - started, cpu_seconds(process) - cpu
        if now != count:
            sys.exit(f"{who}: {now:,} results of {count:,} records")
        return Measured((count - first) / seconds, cpu / (count - first) * 1e6, peak_mb(process))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", default="echo,saker,straight loop", help="by comma; also 'saker, kernels off'")
    parser.add_argument("--as", nargs=5, dest="loop", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.loop:
        loop(*asked.loop)
    names = asked.contenders.split(",")
    found: dict[str, list[Measured]] = {name: [] for name in names}
    with local_kafka(_PARTITIONS, lasting=True) as bootstrap_servers:
        fill(bootstrap_servers, asked.records)
        for number in range(asked.rounds * len(names)):
            who = names[number % len(names)]
            found[who].append(measure(who, bootstrap_servers, asked.records, number))
            last = found[who][-1]
            sys.stderr.write(f"{who}: {last.records_per_s:,.0f} records/s, {last.cpu_us:.2f} us\n")
    for who, runs in found.items():
        rate, cpu, peak = (
            statistics.median(getattr(run, name) for run in runs) for name in ("records_per_s", "cpu_us", "peak_mb")
        )
        sys.stdout.write(
            f"{who}: {rate:,.0f} records/s, {cpu:.2f} us of CPU a record, {peak:.0f} MB (medians of {len(runs)})\n"
        )


if __name__ == "__main__":
    main()
