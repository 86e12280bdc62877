"""The histories of a worker's partitions, for models with velocity features.

    assigned, offset C is committed --recover--> state at an offset O <= C: of a snapshot, or empty, a window earlier
    records from O to C --replay--> decoded, without results; then the partition is live
    every minute: a snapshot of each partition, in slices between batches; it is published once its offset is committed

A history is a function of the partition's log. So a snapshot is a cache, and exactly once needs nothing else.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from saker.engine.config import ServeSettings, cache
from saker.engine.contract import Contract
from saker.engine.errors import HistoryMissing
from saker.engine.history.partition_history import COMPLETE, Histories, PartitionHistory, ReferencePartition
from saker.engine.history.snapshot_file import Header, NoSnapshot, SnapshotFolder, SnapshotReader, SnapshotWriter
from saker.engine.kafka import admin, reader
from saker.engine.kafka.admin import Topic
from saker.engine.kafka.batch import ConsumedBatch, SelectedRecords
from saker.engine.kafka.clients import REQUEST_SECONDS, Consumer, TopicPartition
from saker.engine.metrics.counts import HistoryCounts
from saker.engine.records.decode import History
from saker.engine.records.envelope import Envelope
from saker.engine.velocity import AHEAD_MS, window_text

_log = logging.getLogger("saker")

#: A replay begins this much before the window, for records that come late.
LATE_MS = 3_600_000
_SLICE_SECONDS, _SLICE_BLOCKS = 0.01, 500  # 0.1 to 0.2 ms of work in 10
_FINAL_BLOCKS, _FINAL_WAIT_SECONDS = 20_000, 0.1
_MOST_WAITING = 16  # parts that are not on the disk yet
_QUIET_SECONDS = 1.0
#: Counts of a state that only grow.
_GROWING = ("evicted", "evicted_live", "without_time", "incomplete")


class WorkerHistories:
    """One worker owns it. Only `of` is called by the thread that loads models, too."""

    def __init__(self, settings: ServeSettings, envelope: Envelope | None) -> None:
        self._settings, self._envelope = settings, envelope
        self._folder: SnapshotFolder | None = None
        self._current: PartitionHistory | None = None
        #: Partitions that are replayed: up to the committed offset; and when the last record of each came.
        self._until: dict[int, int] = {}
        self._replayed_at: dict[int, float] = {}
        self._replayed = 0
        #: The offsets that were committed when the partitions were assigned.
        self._starts: dict[int, int] = {}
        self._snapshots: Snapshots | None = None
        self._counted: dict[int, Counter[str]] = {}

    @property
    def active(self) -> bool:
        """Whether the model has velocity features."""
        return self._current is not None

    @property
    def replaying(self) -> bool:
        return bool(self._until)

    def of(self, contract: Contract) -> PartitionHistory | None:
        """What a decoder of the contract needs. Raises `ServingError` if the folder of snapshots cannot be used."""
        if not contract.velocity:
            return None
        within = contract if self._envelope is None else self._envelope.within(contract)
        settings = self._settings.state
        histories = self._current.histories if self._current is not None else None
        return PartitionHistory(within, self._in_folder().hash_key, settings.megabytes << 20, self._settings.kernels, histories)

    def needs_recovery(self, history: History | None) -> bool:
        """Whether `use` will need it."""
        before = None if self._current is None else self._current.histories
        return history is not None and _own(history).histories is not before

    def use(self, history: History | None) -> bool:
        """history: of the decoder of the model that scores from now on, made by `of`. Returns whether partitions must be
        recovered for it.
        """
        must_recover = self.needs_recovery(history)
        before = None if self._current is None else self._current.histories
        self._current = None if history is None else _own(history)
        if history is not None and not must_recover:
            return False
        self._forget(list(before.states) if before is not None else [])
        self._snapshots = None
        if self._current is not None:
            history = self._current
            self._snapshots = Snapshots(
                self._in_folder(), history.histories, self._settings.state.snapshot_seconds, history.limit
            )
        return must_recover

    @property
    def _history(self) -> PartitionHistory:
        if self._current is None:
            raise RuntimeError("the model has no velocity features")
        return self._current

    def _in_folder(self) -> SnapshotFolder:
        if self._folder is None:
            settings = self._settings
            folder = settings.state.folder or cache("state")
            self._folder = SnapshotFolder(folder, settings.group, settings.topic_id or settings.input)
        return self._folder

    # ---- recovery ----

    def recover(self, consumer: Consumer, starts: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Where to read from, so that the histories are complete at `starts`, the committed offsets (below 0: the oldest).

        Raises `HistoryMissing` where records are missing for it, another `ServingError` and KafkaException for a moment.
        """
        if self._current is None or not starts:
            return list(starts)
        (topic,) = admin.topics(self._settings.bootstrap_servers, [self._settings.input])
        self._in_folder().check_partitions(topic.partitions, accept=self._settings.state.cold_start)
        begun, found, empty = time.monotonic(), list[TopicPartition](), list[tuple[TopicPartition, int, int]]()
        for start in starts:
            low, high = consumer.get_watermark_offsets(start, REQUEST_SECONDS)
            at = TopicPartition(topic.name, start.partition, start.offset if start.offset >= 0 else low)
            self._starts[at.partition] = at.offset
            state = self._restored(at.partition, low, at.offset)
            if state is None:
                empty.append((at, low, high))
                continue
            offset = state.statistics()["next_offset"]
            self._put(at.partition, state, offset)
            found.append(self._replay_from(at, offset))
        if empty:
            found += self._from_log(consumer, topic, empty)
        keys = sum(state.statistics()["keys"] for state in self._history.histories.states.values())
        _log.info(
            "histories of partitions %s of %s: %d from snapshots, %d keys, %d records to replay; %.1f s",
            ", ".join(str(at.partition) for at in sorted(found, key=lambda at: at.partition)), topic.name,
            len(starts) - len(empty), keys,
            sum(self._until[at.partition] - at.offset for at in found if at.partition in self._until),
            time.monotonic() - begun,
        )  # fmt: skip
        return found

    def _put(self, partition: int, state: Any, saved: int | None = None) -> None:
        """saved: the offset of its snapshot."""
        self._history.histories.drop(partition)
        self._history.histories.states[partition] = state
        self._counted[partition] = _grown(state)
        if self._snapshots is not None:
            self._snapshots.assigned(partition, saved)

    def _replay_from(self, at: TopicPartition, offset: int) -> TopicPartition:
        if offset >= at.offset:
            histories = self._history.histories
            histories.live[at.partition] = histories.states[at.partition]
            return at
        self._until[at.partition], self._replayed_at[at.partition] = at.offset, time.monotonic()
        return TopicPartition(at.topic, at.partition, offset)

    def _restored(self, partition: int, low: int, committed: int) -> Any:
        """The state of a snapshot, None without a fitting one."""
        snapshot = self._in_folder().open(self._history.histories.definition, partition)
        if snapshot is None:
            return None
        header = snapshot.header
        # Records from `low` on are there. With another limit other keys would have been dropped.
        if not low <= header.offset <= committed or header.limit != self._history.limit:
            _log.info(
                "the snapshot of partition %d is of offset %d, expected %d to %d: not used",
                partition,
                header.offset,
                low,
                committed,
            )
            snapshot.close()
            return None
        try:
            return _restore(self._history, snapshot)
        except (NoSnapshot, ValueError, OSError) as error:
            _log.error("the snapshot of partition %d is not used: %s; its records are replayed", partition, error)
            return None

    def _from_log(
        self, consumer: Consumer, topic: Topic, partitions: Sequence[tuple[TopicPartition, int, int]]
    ) -> list[TopicPartition]:
        """partitions: with their first offset and the one after the last."""
        times = reader.first_timestamps(
            self._settings.bootstrap_servers, [at for at, _, high in partitions if at.offset < high], REQUEST_SECONDS
        )
        now_ms, reach_ms = time.time_ns() // 1_000_000, self._history.contract.longest_window_ms + LATE_MS + AHEAD_MS
        wanted = {at.partition: times.get(at.partition, now_ms) - reach_ms for at, _, _ in partitions}
        asked = [TopicPartition(at.topic, at.partition, max(wanted[at.partition], 0)) for at, _, _ in partitions]
        offsets = {at.partition: at.offset for at in consumer.offsets_for_times(asked, REQUEST_SECONDS)}
        found = []
        for at, low, _ in partitions:
            offset = offsets[at.partition]
            offset = min(offset, at.offset) if offset >= 0 else at.offset
            complete_from = COMPLETE if low == 0 == offset else wanted[at.partition] + AHEAD_MS
            if offset <= low and low > 0:
                self._check_deleted(at, low, topic, now_ms - wanted[at.partition])
                complete_from = self._first_ms(at, low, now_ms) + AHEAD_MS
            self._put(at.partition, self._history.new_state(offset, complete_from))
            found.append(self._replay_from(at, offset))
        return found

    def _check_deleted(self, at: TopicPartition, low: int, topic: Topic, needed_ms: int) -> None:
        """All records that are left have to be replayed. Raises `HistoryMissing` if the topic may have deleted such ones.

        needed_ms: how old the oldest needed record is.
        """
        if topic.retention_bytes == -1 and (topic.retention_ms or 0) >= needed_ms:
            return
        window = window_text(self._history.contract.longest_window_ms)
        what = f"partition {at.partition} of {at.topic}: records before offset {low} are deleted"
        if not self._settings.state.cold_start:
            raise HistoryMissing(
                f"{what}, and velocity features need those of the last {window}; no snapshot has them. Set retention.ms of the "
                f"topic to at least {needed_ms} and retention.bytes to -1, restore the folder of --state, or start with "
                f"--state-cold-start to accept incomplete velocity features for {window}"
            )
        _log.warning("%s; velocity features are incomplete for %s", what, window)

    def _first_ms(self, at: TopicPartition, low: int, now_ms: int) -> int:
        first = [TopicPartition(at.topic, at.partition, low)]
        found = reader.first_timestamps(self._settings.bootstrap_servers, first, REQUEST_SECONDS)
        return found.get(at.partition, now_ms)

    # ---- replay ----

    def split(self, batch: ConsumedBatch) -> tuple[ConsumedBatch, ConsumedBatch]:
        """The records that are replayed, and those that need results. Once the first ones are decoded, call `replayed`."""
        none = SelectedRecords(batch, [])
        after = {number: offset for (_, number), offset in batch.positions().items()}
        if not any(number in self._until for number in after):
            return none, batch
        if all(offset <= self._until.get(number, -1) for number, offset in after.items()):
            return batch, none
        n = len(batch)
        partitions, offsets, times = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64)
        batch.places(partitions, offsets, times)
        until = np.array([self._until.get(number, -1) for number in partitions.tolist()])
        old = offsets < until
        return (
            SelectedRecords(batch, np.flatnonzero(old).tolist()),
            SelectedRecords(batch, np.flatnonzero(~old).tolist()),
        )

    def replayed(self, batch: ConsumedBatch, records: int) -> None:
        """Those of a batch that `split` has found, `records` of them, are in the histories now."""
        self._replayed += records
        now, histories = time.monotonic(), self._history.histories
        for (_, number), after in batch.positions().items():
            if number not in self._until:
                continue
            self._replayed_at[number] = now
            if after >= self._until[number]:
                del self._until[number]
                histories.live[number] = histories.states[number]
                self._counted[number] = _grown(histories.states[number])
                if not self._until:
                    _log.info("all histories are up to date")

    @property
    def n_replaying(self) -> int:
        """Partitions whose replay has not reached the committed offset. Without a record for a second it has: between the
        last record and that offset may be the end of a transaction, which no consumer sees."""
        now = time.monotonic()
        return sum(now - self._replayed_at[number] < _QUIET_SECONDS for number in self._until)

    # ---- the rest of the life of a partition ----

    def step(self, committed: Callable[[int], int]) -> None:
        """Between two batches. committed: of a partition the offset that is committed."""
        if self._snapshots is not None:
            self._snapshots.step(lambda partition: max(committed(partition), self._starts.get(partition, -1)))

    def save(self, partitions: Iterable[int], seconds: float) -> None:
        """Publish snapshots of the partitions, whose offsets are all committed, for their next owner."""
        if self._snapshots is not None:
            self._snapshots.save(list(partitions), seconds)

    def save_all(self, seconds: float) -> None:
        if self._current is not None:
            self.save(list(self._current.histories.states), seconds)

    def drop(self, partitions: Iterable[int]) -> None:
        """Another consumer has them, or they are recovered next."""
        partitions = list(partitions)
        if self._current is not None:
            for number in partitions:
                self._current.histories.drop(number)
        self._forget(partitions)

    def _forget(self, partitions: Iterable[int]) -> None:
        for number in partitions:
            self._until.pop(number, None)
            self._replayed_at.pop(number, None)
            self._counted.pop(number, None)
            self._starts.pop(number, None)
            if self._snapshots is not None:
                self._snapshots.dropped(number)

    def drain_counts(self) -> HistoryCounts:
        """What was counted since the last call, and the sizes as they are."""
        counts = HistoryCounts(replayed=self._replayed, replaying=self.n_replaying)
        self._replayed = 0
        for number, state in () if self._current is None else self._current.histories.states.items():
            statistics = state.statistics()
            counts.keys += statistics["keys"]
            counts.bytes += statistics["bytes"]
            if number not in self._until:  # records that are replayed were counted before
                grown = _grown(state)
                counts.grown.update({name: grown[name] - self._counted[number][name] for name in _GROWING})
                self._counted[number] = grown
        if self._snapshots is not None:
            counts.snapshot_at, counts.snapshot_seconds = self._snapshots.oldest_at, self._snapshots.last_seconds
            counts.snapshot_failures, self._snapshots.failures = self._snapshots.failures, 0
        return counts


def _grown(state: Any) -> Counter[str]:
    statistics = state.statistics()
    return Counter({name: statistics[name] for name in _GROWING})


def _own(history: History) -> PartitionHistory:
    if not isinstance(history, PartitionHistory):
        raise TypeError("expected a history made by `of`")
    return history


def _restore(history: PartitionHistory, snapshot: SnapshotReader) -> Any:
    """The state; raises `NoSnapshot` or ValueError if the file is damaged."""
    header = snapshot.header
    state = history.new_state(header.offset, header.complete_from_ms)
    if isinstance(state, ReferencePartition):
        raise NoSnapshot("the kernels are off")
    for part in snapshot.parts():
        state.restore(part)
    state.end_restore(header.serial, header.evicted, header.evicted_live, header.without_time, header.incomplete)
    return state


class Snapshots:
    """Takes snapshots of histories one after another, each in slices, and has a thread write them. One worker owns it."""

    def __init__(self, folder: SnapshotFolder, histories: Histories, seconds: float, limit: int) -> None:
        """seconds: between two of a partition. limit: of a history, in bytes."""
        self._folder, self._histories, self._seconds, self._limit = folder, histories, seconds, limit
        self._threads = ThreadPoolExecutor(1, "snapshots")
        #: Of a partition: when its next one is due, the offset and time of the last one.
        self._due: dict[int, float] = {}
        self._last: dict[int, int] = {}
        self._at: dict[int, float] = {}
        self._taken: _Taken | None = None
        self._next_slice = 0.0
        self.last_seconds = 0.0
        self.failures = 0

    @property
    def oldest_at(self) -> float:
        """Time (seconds since 1970) of the oldest of the last snapshots; before there is one, of the assignment."""
        return min(self._at.values(), default=time.time())

    def assigned(self, partition: int, saved: int | None) -> None:
        """saved: the offset of its last snapshot, None without one."""
        if saved is not None:
            self._last[partition] = saved
        self._due[partition] = time.monotonic() + self._seconds
        self._at[partition] = time.time()

    def dropped(self, partition: int) -> None:
        for by_partition in (self._due, self._last, self._at):
            by_partition.pop(partition, None)
        if self._taken is not None and self._taken.partition == partition:
            self._taken.discard()
            self._taken = None

    def step(self, committed: Callable[[int], int]) -> None:
        """A slice of work, if one is due."""
        now = time.monotonic()
        if now < self._next_slice:
            return
        self._next_slice = now + _SLICE_SECONDS
        try:
            if self._taken is None:
                self._begin(next((number for number, due in self._due.items() if due <= now), None))
            elif self._taken.advance(_SLICE_BLOCKS, 0.0):
                if self._taken.published:
                    self._finish(self._taken)
                elif committed(self._taken.partition) >= self._taken.offset:
                    self._taken.publish()
        except (OSError, MemoryError) as error:
            self._failed(error)

    def _begin(self, partition: int | None) -> None:
        state = None if partition is None else self._histories.states.get(partition)
        if partition is None or state is None or isinstance(state, ReferencePartition):
            return
        self._due[partition] = time.monotonic() + self._seconds
        statistics = state.statistics()
        if self._last.get(partition) == statistics["next_offset"]:
            self._at[partition] = time.time()
            return
        statistics.pop("bytes")
        header = Header(definition=self._histories.definition.hex(), partition=partition, limit=self._limit, **statistics)
        self._taken = _Taken(state, header, self._folder, self._threads)

    def _finish(self, taken: _Taken) -> None:
        self._taken = None
        self._last[taken.partition], self._at[taken.partition] = taken.offset, taken.begun_at
        self.last_seconds = time.time() - taken.begun_at

    def save(self, partitions: Sequence[int], seconds: float) -> None:
        """Whole snapshots at once, as far as there is time."""
        if self._taken is not None:
            self._taken.discard()
            self._taken = None
        deadline = time.monotonic() + seconds
        try:
            for partition in partitions:
                self._begin(partition)
                while self._taken is not None:
                    if self._taken.advance(_FINAL_BLOCKS, _FINAL_WAIT_SECONDS):
                        if self._taken.published:
                            self._finish(self._taken)
                            break
                        self._taken.publish()
                    if time.monotonic() > deadline:
                        self._taken.discard()
                        _log.warning("no snapshot of partition %d: it did not end within %.0f s", partition, seconds)
                        self._taken = None
                        return
        except (OSError, MemoryError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        _log.error("a snapshot of histories in %s failed: %s; trying again in %.0f s", self._folder.path, error, self._seconds)
        if self._taken is not None:
            self._taken.discard()
            self._taken = None


class _Taken:
    """A snapshot that is being taken. Its methods raise OSError for a write that has failed."""

    def __init__(self, state: Any, header: Header, folder: SnapshotFolder, threads: ThreadPoolExecutor) -> None:
        self.partition, self.offset, self.begun_at = header.partition, header.offset, time.time()
        self._state, self._threads = state, threads
        self._complete = False
        #: Whether its file replaces the previous one, once what waits is done.
        self.published = False
        state.begin_snapshot()
        self._writer: Future[SnapshotWriter] = threads.submit(folder.write, header)
        self._waiting: deque[Future[Any]] = deque([self._writer])

    def advance(self, blocks: int, wait_seconds: float) -> bool:
        """Take that many blocks, unless the disk is slower; then wait for it. Returns whether all are on the disk."""
        if self._waiting and (self._complete or len(self._waiting) > _MOST_WAITING):
            wait([self._waiting[0]], wait_seconds)
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()
        if self._complete or len(self._waiting) > _MOST_WAITING:
            return not self._waiting
        part = self._state.snapshot_part(blocks)
        self._complete = not part
        self._do(lambda writer: writer.add(part) if part else writer.close())
        return False

    def _do(self, call: Callable[[SnapshotWriter], None]) -> None:
        self._waiting.append(self._threads.submit(lambda: call(self._writer.result())))

    def publish(self) -> None:
        """By the thread: a rename can wait for the disk, too."""
        self.published = True
        self._do(SnapshotWriter.publish)

    def discard(self) -> None:
        self._threads.submit(lambda: self._writer.result().discard())
