"""Drain a backlog with one worker on a real Kafka, compared with a bare echo and a straight loop.

`python -m saker.bench.scenarios.backlog`

    raw topic full of records of model S --> contender, one process --> output topic, watched from outside

Rate: from the first results that are seen to the last one, or as far as a contender gets in --seconds. CPU: of its processes in
that time. The echo writes values as long as a result and does no work: what Kafka and its client cost. Medians of interleaved
rounds, broker on the same cores, or with --apart on one of its own, as brokers are when they are other machines.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass

import psutil

from saker.bench.data.reference_models import records, reference_model
from saker.bench.harness.contenders import ALL, VARIANTS, Contender, Topics, running
from saker.bench.peers.straight import BATCH
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka
from saker.engine.kafka import clients
from saker.engine.kafka.clients import KafkaError, KafkaException, TopicPartition

_PARTITIONS = 4
CONTENDERS = ALL | VARIANTS


@dataclass(frozen=True, slots=True)
class Measured:
    records_per_s: float
    cpu_us: float  # a record
    peak_mb: float


def keep_apart() -> None:
    """Give the last core to the children that run, the broker's, and the others to this process and what it starts next."""
    *others, last = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("--apart needs two cores or more, there is one")
    for child in psutil.Process().children(recursive=True):
        for thread in child.threads():
            os.sched_setaffinity(thread.id, [last])
    os.sched_setaffinity(0, others)


def fill(bootstrap_servers: str, count: int) -> None:
    producer = clients.producer(bootstrap_servers)
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

    topics = Topics(bootstrap_servers, RAW, SCORED + suffix, REJECTED + suffix, f"group{suffix}")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="at most so long each time, for those who are slow")
    parser.add_argument("--contenders", nargs="+", default=["echo", "saker", "straight loop"], choices=CONTENDERS)
    parser.add_argument("--apart", action="store_true", help="the broker on a core of its own, the contender on the others")
    asked = parser.parse_args()
    names = asked.contenders
    found: dict[str, list[Measured]] = {name: [] for name in names}
    with local_kafka(_PARTITIONS, lasting=True) as bootstrap_servers:
        fill(bootstrap_servers, asked.records)
        if asked.apart:
            keep_apart()
        # One round more, the first, which is not counted: the broker compiles what each of them makes it do.
        for number in range((asked.rounds + 1) * len(names)):
            who = names[number % len(names)]
            last = measure(CONTENDERS[who], bootstrap_servers, asked.records, number, asked.seconds)
            if number >= len(names):
                found[who].append(last)
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
