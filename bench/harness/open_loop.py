"""The load of a benchmark: a separate process sends each record when it is due, without waiting for earlier ones.

Latency counts from the moment that a record was due, so a stall counts for every record that was due in it. A sender that
falls behind its schedule would measure itself: it reports its delay, and such a run is void.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from saker.bench.harness.produce import produce
from saker.engine.kafka import clients

ARRIVALS = ("poisson", "constant")
PARTITIONS = 4
KEY_DTYPE = np.dtype(">u8")
_TICK_SECONDS = 0.001
_START_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Load:
    """Record n carries n as its key, eight bytes, and goes to partition n % `PARTITIONS`."""

    rate: float  # records/s
    seconds: float
    arrivals: str = "poisson"
    seed: int = 0

    @property
    def count(self) -> int:
        return max(1, round(self.rate * self.seconds))

    def due(self) -> NDArray[np.float64]:
        """Seconds after the start at which each record is due, ascending (n,)."""
        if self.arrivals == "constant":
            return np.arange(self.count) / self.rate
        gaps = np.random.default_rng(self.seed).exponential(1 / self.rate, self.count)
        return np.asarray(np.cumsum(gaps))


def send(load: Load, values: list[bytes], bootstrap_servers: str, topic: str, told: Connection) -> None:
    """Entry point of the process. Record n has value n % len(values). Sends its start (monotonic clock) through the pipe,
    and at the end its largest delay in seconds.

    Records are sent in batches at each tick: one client call per record is too slow for 6,000 records/s on two busy cores.
    """
    producer = clients.producer(bootstrap_servers, **{"queue.buffering.max.messages": 1_000_000})
    due, count = load.due(), load.count
    keys = np.arange(count, dtype=KEY_DTYPE).tobytes()
    start, sent, latest = time.monotonic() + _START_SECONDS, 0, 0.0
    told.send(start)
    while sent < count:
        now = time.monotonic() - start
        upto = int(np.searchsorted(due, now, side="right"))
        if upto > sent:
            latest = max(latest, now - float(due[sent]))
            for partition in range(PARTITIONS):
                numbers = range(sent + (partition - sent) % PARTITIONS, upto, PARTITIONS)
                batch = [{"value": values[n % len(values)], "key": keys[8 * n : 8 * n + 8]} for n in numbers]
                produce(producer, topic, batch, partition)
            sent = upto
        producer.poll(0)
        if sent < count:
            time.sleep(max(_TICK_SECONDS, float(due[sent]) + start - time.monotonic()))
    producer.flush(60)
    told.send(latest)
