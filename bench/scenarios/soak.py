"""Ten minutes under a steady load: do memory, descriptors, threads or latency creep?

`python -m saker.bench.scenarios.soak`

    sender (open_loop.py) --> input topic --> saker serve --> output topic, which keeps little

Every ten seconds all processes of the pool are looked at; the latency is the pool's own histogram (from a record's timestamp to
its acknowledged score), minute by minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import dataclass

from saker.bench.harness.contenders import Running, Topics, running, saker
from saker.bench.harness.e2e import load_values
from saker.bench.harness.open_loop import Load, send
from saker.deploy.local.kafka import Broker
from saker.deploy.local.stack import RAW, REJECTED, SCORED, warm_up
from saker.engine.kafka import admin
from saker.engine.metrics.reading import Reading, read

_EVERY_SECONDS = 10.0
_SMALL = {"retention.bytes": str(200 << 20), "segment.bytes": str(50 << 20)}


@dataclass(frozen=True, slots=True)
class Look:
    """Of all processes together; `peak_mb` of the largest (VmHWM)."""

    seconds: float
    peak_mb: float
    resident_mb: float
    descriptors: int
    threads: int
    metrics: Reading


def look(processes: Running, seconds: float) -> Look:
    found = [one for root in processes.roots for one in (root, *root.children(recursive=True))]
    return Look(
        seconds,
        processes.peak_mb(),
        sum(one.memory_info().rss for one in found) / (1 << 20),
        sum(one.num_fds() for one in found),
        sum(one.num_threads() for one in found),
        read(f"http://127.0.0.1:{processes.metrics_port}/metrics"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50_000, help="records per second")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    broker = Broker(lasting=True, settings={"log.retention.check.interval.ms": "10000"})
    try:
        broker.launch()
        broker.wait()
        admin.create_topics(broker.bootstrap_servers, [RAW, SCORED, REJECTED], 4, _SMALL)
        warm_up(broker.bootstrap_servers)
        topics = Topics(broker.bootstrap_servers, RAW, SCORED, REJECTED, "soak")
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        with running(saker(), topics, asked.workers) as processes:
            load = Load(asked.rate, asked.seconds)
            sender = spawn.Process(target=send, args=(load, load_values(), broker.bootstrap_servers, RAW, theirs))
            sender.start()
            start: float = ours.recv()
            looks = []
            while (passed := time.monotonic() - start) < asked.seconds:
                processes.check()
                looks.append(look(processes, passed))
                time.sleep(_EVERY_SECONDS)
            late: float = ours.recv()
            sender.join()
    finally:
        broker.stop()
    print_looks(looks)
    sys.stdout.write(f"sender at most {late * 1000:.0f} ms late\n")


def print_looks(looks: list[Look]) -> None:
    """Minute by minute."""
    step = round(60 / _EVERY_SECONDS)
    for before, after in zip(looks[::step], looks[step::step], strict=False):
        gained = after.metrics.since(before.metrics)
        p50, p99 = (1000 * (gained.quantile(share, "scoring_latency_seconds") or 0) for share in (0.5, 0.99))
        sys.stdout.write(
            f"minute {after.seconds / 60:4.1f}: p50 {p50:.2f}, p99 {p99:.2f} ms, peak {after.peak_mb:.1f} MB, "
            f"resident {after.resident_mb:.0f} MB, {after.descriptors} descriptors, {after.threads} threads\n"
        )


if __name__ == "__main__":
    main()
