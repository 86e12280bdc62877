"""Latency at a fixed rate through one worker on a real Kafka, beside a bare echo: `python -m bench.latency [--rate 2000]`.

    sender, a process of its own: a record is sent when it is due --> contender --> reader: now minus the time it was due

Open loop: a stall delays the records that were due in it, and they count. A run whose sender was late is void. Medians of the
percentiles of interleaved rounds; broker, sender, contender and reader share the cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from bench.backlog import contender, cpu_seconds, peak_mb
from bench.pipeline import records
from bench.reference_models import reference_model
from deploy.local.stack import RAW, REJECTED, SCORED, create_topics, local_kafka, warm_up
from engine import kafka
from engine.kafka import TopicPartition

_PARTITIONS = 4
_TICK_SECONDS = 0.001
_LATE_SECONDS = 0.05
_WARM_UP_SECONDS = 3.0
_PERCENTILES = (50, 90, 99, 99.9)
_WAIT_SECONDS = 30


def send(bootstrap_servers: str, topic: str, rate: float, count: int, told: Connection) -> None:
    """Record n carries its number as its key and is due n / rate seconds after the start, which is told first."""
    producer = kafka.producer(bootstrap_servers)
    values = records(reference_model("S"), 1024)
    start, sent, latest = time.monotonic() + 0.1, 0, 0.0
    told.send(start)
    while sent < count:
        now = time.monotonic()
        due = min(count, int((now - start) * rate) + 1) if now >= start else 0
        if sent < due:
            latest = max(latest, now - start - sent / rate)
        for number in range(sent, due):
            producer.produce(topic, values[number % len(values)], b"%d" % number, partition=number % _PARTITIONS)
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(_TICK_SECONDS)
    producer.flush(_WAIT_SECONDS)
    told.send(latest)


def measure(
    who: str, bootstrap_servers: str, rate: float, seconds: float, number: int
) -> tuple[NDArray[np.float64], float, float, float]:
    """Latencies in ms, how late the sender was in ms, the contender's CPU in us a record and its peak memory in MB."""
    suffix = f"-{who.replace(' ', '-')}-{number}"
    create_topics(bootstrap_servers, _PARTITIONS, suffix)
    count = int(rate * seconds)
    reader = kafka.consumer(bootstrap_servers, **{"group.id": f"reader{suffix}", "fetch.wait.max.ms": 5})
    reader.assign([TopicPartition(SCORED + suffix, p, 0) for p in range(_PARTITIONS)])
    read_at = np.full(count, np.nan)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with contender(who, bootstrap_servers, RAW + suffix, SCORED + suffix, REJECTED + suffix, f"group{suffix}") as process:
        sender = spawn.Process(target=send, args=(bootstrap_servers, RAW + suffix, rate, count, theirs))
        sender.start()
        start, cpu = ours.recv(), cpu_seconds(process)
        until = start + seconds + _WAIT_SECONDS
        missing = count
        while missing and time.monotonic() < until:
            first = reader.poll(0.1)
            if first is None:
                continue
            batch = [first, *reader.consume(1000, 0)]
            now = time.monotonic()
            places = [int(message.key()) for message in batch if message.error() is None]
            missing -= int(np.isnan(read_at[places]).sum())
            read_at[places] = np.fmin(read_at[places], now)
        late = ours.recv()
        sender.join()
        cpu, peak = cpu_seconds(process) - cpu, peak_mb(process)
    reader.close()
    if missing:
        sys.exit(f"{who}: {missing:,} of {count:,} records did not come back")
    due = start + np.arange(count) / rate
    return ((read_at - due) * 1000)[int(rate * _WARM_UP_SECONDS) :], late * 1000, cpu / count * 1e6, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000, help="records a second")
    parser.add_argument("--seconds", type=float, default=13, help="of a run, the first three of which are dropped")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", default="echo,saker", help="by comma; also 'straight loop'")
    asked = parser.parse_args()
    names = asked.contenders.split(",")
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    with local_kafka(_PARTITIONS, lasting=True) as bootstrap_servers:
        warm_up(bootstrap_servers)
        # The first round is not counted: the broker's compiler is at work for the first 20 seconds or so.
        for number in range((asked.rounds + 1) * len(names)):
            who = names[number % len(names)]
            latencies, late_ms, cpu_us, peak = measure(who, bootstrap_servers, asked.rate, asked.seconds, number)
            percentiles = [float(p) for p in np.percentile(latencies, _PERCENTILES)]
            void, counts = late_ms > _LATE_SECONDS * 1000, number >= len(names)
            told = ", ".join(f"p{p} {ms:.2f}" for p, ms in zip(_PERCENTILES, percentiles, strict=True))
            sys.stderr.write(
                f"{who}: {told} ms, sender at most {late_ms:.0f} ms late{', void' if void else ''}, {cpu_us:.0f} us\n"
            )
            if counts and not void:
                found[who].append([*percentiles, cpu_us, peak])
    for who, runs in found.items():
        if not runs:
            sys.exit(f"{who}: the sender was late in every round: choose a lower --rate")
        *percentiles, cpu_us, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        told = ", ".join(f"p{p} {ms:.2f}" for p, ms in zip(_PERCENTILES, percentiles, strict=True))
        sys.stdout.write(f"{who}: {told} ms, {cpu_us:.0f} us of CPU a record, {peak:.0f} MB (medians of {len(runs)})\n")


if __name__ == "__main__":
    main()
