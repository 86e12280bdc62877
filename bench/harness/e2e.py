"""One contender under an open-loop load on a real Kafka, from the moment a record was due to its result read back.

    sender (open_loop.py) --> input topic --> contender --> output topic --> reader here: now minus the time it was due

Every record is looked for, and the first results after the warm-up are compared with LightGBM's own scores.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass, field
from functools import cache

import lightgbm as lgb
import numpy as np
import orjson
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from saker.bench.data.reference_models import records, reference_model
from saker.bench.harness.contenders import BenchFailed, Contender, Running, Topics, running
from saker.bench.harness.open_loop import KEY_DTYPE, PARTITIONS, Load, send
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics
from saker.engine.kafka import clients, groups
from saker.engine.kafka.clients import Message, TopicPartition
from saker.engine.metrics.counts import STAGES
from saker.engine.metrics.reading import Reading, read
from saker.engine.model.session import open_session
from saker.engine.records.decode import Decoder

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
#: A sender later than this has measured itself.
LATE_MS = 100.0
_READY_SECONDS, _WAIT_SECONDS = 120.0, 20.0
_GROUP_SECONDS = 10.0  # a contender that answers has joined its group by then, if it has one
_POOL = 1024
_TOLERANCE = 1e-12
_PROBE = 1 << 62  # keys from here on are probes
_HIGHEST_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run. `percentiles_ms`, `max_ms`, `mean_ms` and `histogram` exclude the warm-up.

    lost: not read back within `_WAIT_SECONDS` after the last was due. wrong: of `checked` scores, those that
    differ from LightGBM's.
    stages_ms: mean time of a batch in each stage, from the contender's metrics; `wait` is the rest of the mean latency.
    """

    contender: str
    rate: float
    seconds: float
    arrivals: str
    workers: int
    sent: int
    lost: int
    duplicates: int
    checked: int
    wrong: int
    late_ms: float
    records_per_s: float
    percentiles_ms: dict[str, float]
    max_ms: float
    mean_ms: float
    cpu_us: float
    peak_mb: float
    batch_records: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    histogram: str = ""

    @property
    def void(self) -> bool:
        return self.late_ms > LATE_MS

    @property
    def whole(self) -> bool:
        """Nothing lost, nothing wrong."""
        return not self.lost and not self.wrong

    def __str__(self) -> str:
        told = ", ".join(f"p{name} {ms:.2f}" for name, ms in self.percentiles_ms.items())
        flaws = [f"{n:,} {what}" for n, what in ((self.lost, "lost"), (self.wrong, "wrong")) if n]
        if self.void:
            flaws.append("void")
        return (
            f"{self.contender} at {self.rate:,.0f}/s: {told}, max {self.max_ms:.1f} ms, {self.records_per_s:,.0f} records/s, "
            f"{self.cpu_us:.1f} µs of CPU per record, {self.peak_mb:.0f} MB, sender at most {self.late_ms:.0f} ms late"
            f"{''.join(f', {flaw}' for flaw in flaws)}"
        )


@cache
def load_values() -> list[bytes]:
    """The different records of a load."""
    return records(reference_model("S"), _POOL)


@cache
def expected_scores() -> NDArray[np.float64]:
    """What LightGBM itself makes of `load_values`."""
    model = reference_model("S")
    matrix = Decoder(open_session(model.onnx, "off").contract, "off").decode(load_values()).matrix
    return np.asarray(lgb.Booster(model_file=model.text).predict(matrix, num_threads=1))


class _Reader:
    """Reads results: when each number first arrived, how many arrived again, and all values, which are checked later."""

    def __init__(self, topics: Topics, count: int) -> None:
        self.read_at = np.full(count, np.nan)
        self.duplicates = 0
        self._results: list[tuple[NDArray[np.int64], list[bytes]]] = []
        self._consumer = clients.consumer(topics.bootstrap_servers, **{"group.id": "reader", "fetch.wait.max.ms": 5})
        self._consumer.assign([TopicPartition(topics.output, p, 0) for p in range(PARTITIONS)])

    def poll(self, seconds: float) -> int:
        """How many new records came back; probes are not counted."""
        first = self._consumer.poll(seconds)
        if first is None:
            return 0
        batch = [first, *self._consumer.consume(5_000, 0)]
        now = time.monotonic()
        if any(map(Message.error, batch)):
            batch = [m for m in batch if m.error() is None]
        numbers = np.frombuffer(b"".join(map(Message.key, batch)), KEY_DTYPE).astype(np.int64)
        if (numbers >= _PROBE).any():
            batch = [m for m, number in zip(batch, numbers, strict=True) if number < _PROBE]
            numbers = numbers[numbers < _PROBE]
        self._results.append((numbers, list(map(Message.value, batch))))
        fresh = np.unique(numbers[np.isnan(self.read_at[numbers])])
        self.read_at[fresh] = now
        self.duplicates += len(numbers) - len(fresh)
        return len(fresh)

    def await_probe(self, seconds: float) -> bool:
        """Whether anything at all comes back."""
        first = self._consumer.poll(seconds)
        return first is not None and first.error() is None

    def check(self) -> tuple[int, int]:
        """The number of scores, and of those that differ from LightGBM's."""
        expected, checked, wrong = expected_scores(), 0, 0
        for numbers, values in self._results:
            scores = np.array([orjson.loads(value)["fraud_score"] for value in values])
            checked += len(scores)
            wrong += int((np.abs(scores - expected[numbers % _POOL]) > _TOLERANCE).sum())
        return checked, wrong

    def close(self) -> None:
        self._consumer.close()


def measure(
    contender: Contender, bootstrap_servers: str, load: Load, *, workers: int, number: int, warm_up_seconds: float
) -> Run:
    """One run on separate topics. number: of the run, for the names of its topics. Raises `BenchFailed`."""
    suffix = f"-bench-{os.getpid()}-{number}"
    create_topics(bootstrap_servers, PARTITIONS, suffix)
    topics = Topics(bootstrap_servers, RAW + suffix, SCORED + suffix, REJECTED + suffix, f"group{suffix}")
    due, count = load.due(), load.count
    warm = int(np.searchsorted(due, warm_up_seconds))
    reader = _Reader(topics, count)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with running(contender, topics, workers) as processes:
        _await(processes, reader, topics, workers)
        sender = spawn.Process(target=send, args=(load, load_values(), bootstrap_servers, topics.input, theirs))
        sender.start()
        start, before, cpu = ours.recv(), _metrics(processes), processes.cpu_seconds()
        missing, until = count, start + due[-1] + _WAIT_SECONDS
        while missing and time.monotonic() < until:
            missing -= reader.poll(0.1)
        late = ours.recv()
        sender.join()
        cpu, after, peak = processes.cpu_seconds() - cpu, _metrics(processes), processes.peak_mb()
        processes.check()
    reader.close()
    latencies = (reader.read_at - start - due)[warm:]
    latencies = latencies[~np.isnan(latencies)]
    histogram = histogram_of(latencies)
    seconds = float(np.nanmax(reader.read_at) - start) if missing < count else float("inf")
    mean_ms = float(latencies.mean()) * 1000 if len(latencies) else float("nan")
    batch, stages_ms = _spent(before, after, mean_ms)
    checked, wrong = reader.check() if contender.scores else (0, 0)
    return Run(
        contender=contender.name,
        rate=load.rate,
        seconds=load.seconds,
        arrivals=load.arrivals,
        workers=workers,
        sent=count,
        lost=missing,
        duplicates=reader.duplicates,
        checked=checked,
        wrong=wrong,
        late_ms=late * 1000,
        records_per_s=(count - missing) / seconds,
        percentiles_ms={f"{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in PERCENTILES},
        max_ms=histogram.get_max_value() / 1000,
        mean_ms=mean_ms,
        cpu_us=cpu / count * 1e6,
        peak_mb=peak,
        batch_records=batch,
        stages_ms=stages_ms,
        histogram=histogram.encode().decode(),
    )


def _await(processes: Running, reader: _Reader, topics: Topics, workers: int) -> None:
    """Send probes until some have come back and the group, if there is one, is stable with all its workers.

    Probes have other keys than the load, so a late one is not counted.
    """
    producer = clients.producer(topics.bootstrap_servers)
    until, answered = time.monotonic() + _READY_SECONDS, 0
    sent = 0
    while answered < PARTITIONS:
        processes.check()
        if time.monotonic() > until:
            raise BenchFailed(f"no result of {topics.input} came to {topics.output} in {_READY_SECONDS:.0f} s")
        key = np.array([_PROBE + sent], KEY_DTYPE).tobytes()
        producer.produce(topics.input, load_values()[0], key, partition=answered % PARTITIONS)
        producer.flush(5)
        sent += 1
        answered += reader.await_probe(0.5)
    group, grouped_until = groups.GroupAdmin(topics.bootstrap_servers), time.monotonic() + _GROUP_SECONDS
    while (found := group.describe(topics.group, topics.input)) is None or not found.stable or 0 < len(found.members) < workers:
        processes.check()
        if found is None and time.monotonic() > grouped_until:
            break  # it assigns itself partitions, as Bytewax and MLServer do
        if time.monotonic() > until:
            raise BenchFailed(f"group {topics.group} has not {workers} members after {_READY_SECONDS:.0f} s: {found}")
    group.close()


def histogram_of(seconds: NDArray[np.float64]) -> HdrHistogram:
    """Microseconds, three significant digits."""
    histogram = HdrHistogram(1, _HIGHEST_US, 3)
    values, counts = np.unique(np.maximum(seconds * 1e6, 1).astype(np.int64), return_counts=True)
    for value, many in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, many)
    return histogram


def _metrics(processes: Running) -> Reading | None:
    """Of a contender that has saker's metrics."""
    return None if processes.metrics_port is None else read(f"http://127.0.0.1:{processes.metrics_port}/metrics")


def _spent(before: Reading | None, after: Reading | None, mean_ms: float) -> tuple[float, dict[str, float]]:
    """Records in a mean batch, and the mean ms of a batch in each stage."""
    if before is None or after is None:
        return 0.0, {}
    gained = after.since(before)
    stages = {stage: gained.mean("stage_latency_seconds", stage=stage) * 1000 for stage in STAGES}
    return gained.mean("batch_records"), {"wait": mean_ms - sum(stages.values()), **stages}
