"""Drain a backlog with one worker on a real Kafka, next to a no-op baseline and a Python loop: `saker bench backlog`.

    raw topic full of records of model S --> contender, one process --> output topic, watched from outside

Rate: from the first results that are seen to the last one, or as far as a contender gets in the time limit. CPU: of its
processes in that time. The baseline writes values as long as a result and does no work: the cost of Kafka and its client.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import psutil

from saker.bench.data.reference_models import records, reference_model
from saker.bench.harness.contenders import ALL, VARIANTS, Contender, Topics, avro_schema, running
from saker.bench.peers.python_loop import BATCH
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka
from saker.engine.kafka import clients
from saker.engine.kafka.clients import KafkaError, KafkaException, TopicPartition
from saker.training.avro_rows import AvroRows

_PARTITIONS = 4
CONTENDERS = ALL | VARIANTS


@dataclass(frozen=True, slots=True)
class Measured:
    records_per_s: float
    cpu_us: float  # per record
    peak_mb: float  # of all its processes together

    def __str__(self) -> str:
        return f"{self.records_per_s:,.0f} records/s, {self.cpu_us:.2f} µs of CPU per record, {self.peak_mb:.0f} MB"


def keep_apart() -> None:
    """Give the last core to the running children (the broker), and the others to this process and its next children."""
    *others, last = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("--apart needs two cores or more, there is one")
    for child in psutil.Process().children(recursive=True):
        for thread in child.threads():
            os.sched_setaffinity(thread.id, [last])
    os.sched_setaffinity(0, others)


def fill(bootstrap_servers: str, count: int, suffix: str = "") -> None:
    """The input topic with this end of its name."""
    producer = clients.producer(bootstrap_servers)
    values = records(reference_model("S"), 4096)
    if suffix:
        writer = AvroRows(avro_schema().read_text())
        values = [writer.write(orjson.loads(value)) for value in values]
    for number in range(count):
        while True:
            try:
                producer.produce(RAW + suffix, values[number % len(values)], partition=number % _PARTITIONS)
                break
            except BufferError:
                producer.poll(0.01)
        if number % BATCH == 0:
            producer.poll(0)
    producer.flush(60)


def measure(contender: Contender, bootstrap_servers: str, count: int, number: int, most_seconds: float) -> Measured:
    suffix = f"-{number}"
    create_topics(bootstrap_servers, _PARTITIONS, suffix)
    watcher = clients.consumer(bootstrap_servers, **{"group.id": "watcher"})
    partitions = [TopicPartition(SCORED + suffix, p) for p in range(_PARTITIONS)]

    def seen() -> int:
        while True:
            try:
                return sum(watcher.get_watermark_offsets(p, timeout=10)[1] for p in partitions)
            except KafkaException as error:  # a topic that is this new
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                    raise

    topics = Topics(bootstrap_servers, RAW + contender.input, SCORED + suffix, REJECTED + suffix, f"group{suffix}")
    with running(contender, topics, 1) as processes:
        while not (first := seen()):
            processes.check()
            time.sleep(0.005)
        started, cpu = time.monotonic(), processes.cpu_seconds()
        while (now := seen()) < count and time.monotonic() - started < most_seconds:
            processes.check()
            time.sleep(0.005)
        seconds, cpu = time.monotonic() - started, processes.cpu_seconds() - cpu
        if now > count and not contender.transactional:
            sys.exit(f"{contender.name}: {now:,} results of {count:,} records")
        seen_since = min(now, count) - first
        return Measured(seen_since / seconds, cpu / seen_since * 1e6, processes.peak_mb())


def run(
    contenders: Sequence[str],
    *,
    records: int,
    rounds: int,
    most_seconds: float,
    apart: bool,
    say: Callable[[object], None],
) -> dict[str, list[Measured]]:
    """The measurements of each contender, in rounds that alternate. One more round comes first and is not counted, since a new
    broker compiles its code. apart: the broker on one core, the contender on the others.
    """
    found: dict[str, list[Measured]] = {name: [] for name in contenders}
    with local_kafka(_PARTITIONS, lasting=True) as bootstrap_servers:
        for suffix in sorted({CONTENDERS[name].input for name in contenders}):
            if suffix:
                create_topics(bootstrap_servers, _PARTITIONS, suffix)
            fill(bootstrap_servers, records, suffix)
        if apart:
            keep_apart()
        for number in range((rounds + 1) * len(contenders)):
            who = contenders[number % len(contenders)]
            last = measure(CONTENDERS[who], bootstrap_servers, records, number, most_seconds)
            counted = number >= len(contenders)
            say(f"{'' if counted else '(not counted) '}{who}: {last}")
            if counted:
                found[who].append(last)
    return found


def median(runs: Sequence[Measured]) -> Measured:
    """The run with the median rate."""
    return sorted(runs, key=lambda run: run.records_per_s)[len(runs) // 2]
