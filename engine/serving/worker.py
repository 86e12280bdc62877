"""One worker process: Kafka in, Kafka out. Its model is proven before the first record is consumed.

    consume --> BatchScorer --> Delivery.send       (or all of it by the fast path, inside `consume`)
    every 0.25 s: a report to the pool, and the model that the pool asks for

The process has one busy thread. A second one loads models, and librdkafka has several.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from types import FrameType
from typing import assert_never

from saker.engine.config import EXACTLY_ONCE, ServeSettings
from saker.engine.delivery.at_least_once import AtLeastOnce
from saker.engine.delivery.base import Delivery
from saker.engine.delivery.exactly_once import ExactlyOnce
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.errors import Fenced, HistoryMissing, ReadAgain, RestartWorker, SakerError, ServingError
from saker.engine.kafka import clients, groups
from saker.engine.kafka.batch import ConsumedBatch, Partition
from saker.engine.kafka.clients import OFFSET_STORED, Consumer, KafkaError, KafkaException, TopicPartition
from saker.engine.kafka.native_transport import TransportChoice
from saker.engine.log import log_to_stderr
from saker.engine.metrics.counts import Counts
from saker.engine.model.active_model import ActiveModel, Backends
from saker.engine.model.registry import ResolvedModel
from saker.engine.records.formats import Format
from saker.engine.schema_registry import open_format
from saker.engine.serving.batch_scorer import BatchScorer
from saker.engine.serving.histories import WorkerHistories
from saker.engine.serving.messages import (
    ChangeModel,
    Counted,
    Failed,
    FromWorker,
    ModelChanged,
    ModelRejected,
    Ready,
    TopicsGrown,
    ToWorker,
    WorkerFenced,
)
from saker.engine.serving.model_loading import LoadingModel, load
from saker.engine.serving.poison_records import SuspectRecords
from saker.engine.serving.schema_wait import AskedSchemas, SchemaWait

_log = logging.getLogger("saker")

_REPORT_SECONDS = 0.25
_SESSION_TIMEOUT_MS = 10_000  # a worker that does not come back holds its partitions for so long
_OFFSETS_SECONDS = 2.0  # this worker's other partitions wait meanwhile
_STABLE_SECONDS = 20.0  # a replay needs the committed offset; a lost worker's transaction ends within this time
_REFRESH_SECONDS = 1.0
_HEARTBEAT_MS = 500  # a member learns of a rebalance by its next heartbeat; partitions that move wait for that


def main(
    number: int,
    settings: ServeSettings,
    resolved: ResolvedModel,
    pool: Connection,
    marker: InFlightMarker,
    suspects: SuspectRecords,
) -> None:
    """Entry point of the process. Reports to the pool what a user must mend; anything else is a crash."""
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pool decides
    try:
        records = _nonblocking(open_format(settings.records))
        histories = WorkerHistories(settings, records.envelope)
        model = load(resolved, settings, records, histories)
        worker = Worker(number, settings, model, pool, marker, suspects, records, histories)
        gc.collect()
        gc.freeze()  # existing objects stay: a collection that walks them takes 20 ms and frees none
        signal.signal(signal.SIGTERM, worker.stop)
        worker.run()
    except Fenced as error:
        pool.send(WorkerFenced(str(error)))
    except SakerError as error:
        pool.send(Failed(str(error)))
    except RestartWorker as error:
        _log.error("worker %d gives up: %s", number, error)
    except Exception:  # noqa: BLE001 - the pool sees only that it ended
        _log.exception("worker %d failed", number)
    else:
        return
    # At once. With a broker that went away, librdkafka may wait for ever in a call that has a timeout (of a transaction, 2.16)
    # or while a client is closed; the restarted worker ends what this one leaves open.
    os._exit(1)


def _nonblocking(records: Format) -> Format:
    return records if records.schemas is None else replace(records, schemas=AskedSchemas(records.schemas))


def instance_of(settings: ServeSettings, number: int) -> str:
    """A worker's name in its group: the same through every restart."""
    return f"{settings.instance}-{number}"


def _member(settings: ServeSettings, name: str) -> dict[str, str | int]:
    """Settings of a worker as a member of its group.

    Under KIP-848 a static member that comes back is refused until the broker's session timeout (45 s) has passed, with a fatal
    error; a dynamic one leaves its partitions standing as long, but can work (measured). So there it has no name.
    """
    if settings.group_protocol == "consumer":
        return {"group.protocol": "consumer"}
    return {
        # A static member that is started again has its partitions back without a rebalance.
        "group.instance.id": name,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": _SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": _HEARTBEAT_MS,
    }


class Worker:
    """Consumes, scores, sends and commits until the pool stops it."""

    def __init__(
        self,
        number: int,
        settings: ServeSettings,
        model: ActiveModel,
        pool: Connection,
        marker: InFlightMarker,
        suspects: SuspectRecords,
        records: Format,
        histories: WorkerHistories,
    ) -> None:
        self._settings, self._pool, self._model, self._records = settings, pool, model, records
        self._histories = histories
        self._scorer = BatchScorer(marker, suspects, settings.late_ms)
        self._counts = Counts()  # those of the delivery are its own
        self._parent_id = os.getppid()
        self._stopping = self._joined = False
        self._asked: ResolvedModel | None = None
        self._loading: LoadingModel | None = None
        self._writable = settings.writable_partitions
        self._reported = time.monotonic()
        choice = TransportChoice(settings.transport, settings.kernels)
        name = instance_of(settings, number)
        self._consumer = clients.consumer(
            settings.bootstrap_servers,
            **{
                "group.id": settings.group,
                **_member(settings, name),
                "on_commit": self._on_commit,
                # An offset that does not exist any more is reported, not jumped over.
                "auto.offset.reset": "error",
                **choice.client_settings,
            },
        )
        deliver: type[Delivery] = ExactlyOnce if settings.delivery == EXACTLY_ONCE else AtLeastOnce
        producers = clients.producers(
            settings.bootstrap_servers, [choice.client_settings | one for one in deliver.producers(settings, name)]
        )
        self._transport = choice.open(self._consumer, producers, settings.output)
        self._why_public = choice.reason
        self._delivery = deliver(self._consumer, self._transport, settings, marker)
        schemas = records.schemas
        self._schemas = SchemaWait(schemas, self._consumer) if isinstance(schemas, AskedSchemas) else None
        self._use(model)

    def _use(self, model: ActiveModel) -> None:
        """Between two batches."""
        self._counts.blank += self._model.decoder.drain_blank()
        history = model.decoder.history
        partitions = self._consumer.assignment() if self._joined else []
        if partitions and self._histories.needs_recovery(history):
            # Offsets are committed up to here, so the partitions start like those of a new worker.
            if not self._delivery.drain(self._settings.drain_seconds):
                raise RestartWorker("results were not acknowledged in time, before a model with other velocity features")
            self._histories.save_all(self._settings.drain_seconds)
        must_recover = self._histories.use(history)
        self._model = model
        self._delivery.use_model(model.native)
        if partitions and must_recover:
            self._consumer.incremental_unassign(partitions)
            self._assign(self._consumer, partitions)

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def run(self) -> None:
        self._consumer.subscribe(
            [self._settings.input],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        try:
            while not self._stopping:
                try:
                    self._step()
                    self._delivery.poll()
                    self._histories.step(self._committed)
                except ReadAgain as error:
                    self._read_again(str(error))
                if time.monotonic() - self._reported >= _REPORT_SECONDS:
                    self._report()
                    self._hear()
                    self._change_model()
                    if self._schemas is not None:
                        self._schemas.resume()
                    # A parent that was killed sends no signal; its children go to another parent.
                    self._stopping |= os.getppid() != self._parent_id
            if self._delivery.drain(self._settings.drain_seconds):
                self._histories.save_all(self._settings.drain_seconds / 2)
            else:
                _log.warning("not all results were acknowledged in time; their records will be read again")
                self._delivery.abort()
        except Exception:
            self._delivery.abort()
            raise
        self._report()
        self._transport.close()

    def _step(self) -> None:
        """Consume a batch and score it. It is gone when this returns: a client does not end while its records are held."""
        if self._delivery.full:
            self._delivery.wait()
            return
        batch, errors = self._delivery.consume(fast_path=not self._scorer.has_suspects)
        if self._schemas is not None and len(batch):
            batch = self._schemas.ready(self._model.decoder, batch)
        if self._histories.replaying and len(batch):
            batch = self._replay(batch)
        if len(batch):
            for part in self._scorer.score(self._model, batch):
                self._delivery.send(part.batch, part.positions, part.scored, alone=part.alone)
                if part.alone:
                    if not self._delivery.drain(self._settings.drain_seconds):
                        raise RestartWorker("the result of a record that is sent alone was not acknowledged in time")
                    self._report()  # the next record may crash this worker, and its counts with it
        elif self._delivery.holds:
            self._delivery.wait()
        for error in errors:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._delivery.drain(self._settings.drain_seconds)
            _check(error, self._settings)

    def _replay(self, batch: ConsumedBatch) -> ConsumedBatch:
        """Enter the records before the committed offsets into the histories; returns the remaining ones."""
        old, rest = self._histories.split(batch)
        if len(old):
            self._scorer.replay(self._model, old)
        self._histories.replayed(batch, len(old))
        return rest

    def _report(self) -> None:
        """Report the counts. If the pool does not read, report them later, since scoring does not wait."""
        self._reported = time.monotonic()
        counts, self._counts = self._counts, Counts()
        counts.late += self._scorer.drain_late()
        history = self._histories.drain_counts()
        history.add(counts.history)
        if blank := self._model.decoder.drain_blank():
            counts.blank += blank
            clients.warn(
                f"records of {self._settings.input} have none of the {len(self._model.session.contract.features)} fields that "
                f"{self._model.name} reads, and are scored as if all were missing: are the fields called otherwise there?"
            )
        delivered = self._delivery.drain_counts()
        delivered.add(counts)
        delivered.history = history
        if not select.select([], [self._pool], [], 0)[1]:
            self._counts = delivered
            return
        self._say(Counted(delivered))
        if self._joined:
            partitions = frozenset(number for _, number in self._transport.partitions)
            self._say(Ready(self._backends(), partitions, self._schemas.long if self._schemas else 0))

    def _say(self, message: FromWorker) -> None:
        with contextlib.suppress(OSError):  # the pool is gone; the loop ends soon
            self._pool.send(message)

    def _hear(self) -> None:
        """Handle the messages of the pool."""
        while self._pool.poll():
            try:
                message: ToWorker = self._pool.recv()
            except (EOFError, OSError):  # the pool is gone
                self._stopping = True
                return
            match message:
                case ChangeModel(model):
                    self._asked = model
                case TopicsGrown(writable):
                    self._grow(writable)
                case _:
                    assert_never(message)

    def _backends(self) -> Backends:
        return self._model.backends.on(self._transport.backend, self._why_public)

    def _change_model(self) -> None:
        """Load the model that the pool asks for, and use it as soon as it is proven: between two batches."""
        if self._loading is None:
            if self._asked is not None:
                self._loading = LoadingModel(self._asked, self._settings, self._records, self._histories)
                self._asked = None
            return
        if self._loading.is_alive():
            return
        loaded, self._loading = self._loading.result, None
        if isinstance(loaded, ActiveModel):
            self._use(loaded)
            self._say(ModelChanged(self._backends()))
        elif loaded is None:
            raise RuntimeError("the thread that loads a model ended without a result")
        else:
            self._say(ModelRejected(str(loaded)))

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joined = True
        self._counts.rebalances += 1
        self._assign(consumer, partitions)

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._histories.drop(one.partition for one in partitions)
        starts = self._starts(consumer, partitions)
        try:
            starts = self._histories.recover(consumer, starts)
        except HistoryMissing:
            raise
        except (ServingError, KafkaException) as error:
            raise RestartWorker(f"cannot recover the histories of partitions {_numbers(partitions)}: {error}") from error
        # Just before: when librdkafka stops fetching a partition that was unassigned, its queue may be attached to no other.
        self._transport.attach(_names(partitions))
        consumer.incremental_assign(starts)
        self._pause([one for one in partitions if one.partition >= self._writable])

    def _read_again(self, why: str) -> None:
        _log.warning("%s; uncommitted records will be read again", why)
        self._delivery.roll_back()
        partitions = self._consumer.assignment()
        if partitions:
            self._consumer.incremental_unassign(partitions)
            self._assign(self._consumer, partitions)

    def _starts(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """The offsets at which to continue. librdkafka keeps asking for those that Kafka does not return now; the worker
        reads the remaining partitions meanwhile."""
        try:
            seconds = _STABLE_SECONDS if self._histories.active else _OFFSETS_SECONDS
            starts = groups.starts(consumer, partitions, self._settings.topic_id, seconds)
        except KafkaException as error:
            if self._histories.active:
                raise RestartWorker(f"cannot read the committed offsets: {error.args[0].str()}") from error
            _log.warning(
                "cannot read the committed offsets of partitions %s of %s yet (%s); a lost worker may have left a transaction "
                "open; retrying; if this persists, see docs/operate/failures.md",
                _numbers(partitions), self._settings.input, error.args[0].str(),
            )  # fmt: skip
            return [TopicPartition(one.topic, one.partition, OFFSET_STORED) for one in partitions]
        for at, why, deleted in starts:
            self._counts.deleted += deleted
            if why is not None:
                _log.error("partition %d of %s: %s", at.partition, at.topic, why)
        return [start.at for start in starts]

    def _pause(self, partitions: list[TopicPartition]) -> None:
        """A result has its record's partition."""
        if not partitions:
            return
        _log.error(
            "partitions %s of %s are paused: %s and %s have only %d partitions; add partitions to them",
            _numbers(partitions), self._settings.input, self._settings.output, self._settings.rejected, self._writable,
        )  # fmt: skip
        self._consumer.pause(partitions)

    def _grow(self, writable: int) -> None:
        """Resume the partitions that were paused because the output topics lacked them."""
        topics = (self._settings.output, self._settings.rejected)
        try:
            self._transport.refresh(topics, _REFRESH_SECONDS)
        except KafkaException as error:
            raise RestartWorker(f"cannot read the partitions of {' and '.join(topics)}: {error.args[0].str()}") from error
        before, self._writable = self._writable, writable
        waited = [TopicPartition(topic, number) for topic, number in self._transport.partitions if before <= number < writable]
        if waited:
            self._consumer.resume(waited)
            _log.info("partitions %s of %s are resumed", _numbers(waited), self._settings.input)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._delivery.on_commit(error, partitions)

    def _on_revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight before another member continues at the committed offsets."""
        try:
            self._delivery.drain(self._settings.drain_seconds)
        except ReadAgain:
            self._delivery.roll_back()
            self._on_lost(None, partitions)
            raise  # so that nothing more is consumed before it is read again
        self._histories.save([one.partition for one in partitions], self._settings.drain_seconds / 2)
        self._on_lost(None, partitions)

    def _on_lost(self, _: object, partitions: list[TopicPartition]) -> None:
        """What is not committed is read again by the new owner: twice, not lost."""
        self._transport.drop_partitions(_names(partitions))
        if self._schemas is not None:
            self._schemas.drop_partitions(_names(partitions))
        self._delivery.drop_partitions(_names(partitions))
        self._histories.drop(one.partition for one in partitions)

    def _committed(self, partition: int) -> int:
        return self._delivery.committed((self._settings.input, partition))


def _names(partitions: list[TopicPartition]) -> set[Partition]:
    return {(partition.topic, partition.partition) for partition in partitions}


def _numbers(partitions: list[TopicPartition]) -> str:
    return ", ".join(str(number) for number in sorted(one.partition for one in partitions))


def _check(error: KafkaError, settings: ServeSettings) -> None:
    """librdkafka recovers from most errors of a consumer. Raise for the fatal ones, and for a missing topic."""
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise RestartWorker(f"a committed offset of {settings.input} no longer exists: {error.str()}")
    if error.code() == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        clients.warn(
            f"group {settings.group} has members with another assignor or protocol, so no worker can join: use "
            "another --group, or stop those members"
        )
    fatal = error.fatal() or error.code() == KafkaError._FATAL
    if fatal and "fenced" in error.str():
        raise Fenced(
            f"another pool serves group {settings.group} as instance {settings.instance}: use another --instance for this pool",
        )
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise RestartWorker(f"topic {settings.input} does not exist: {error.str()}")
    if fatal:
        raise ServingError(f"topic {settings.input} at {settings.bootstrap_servers}: {error.str()}")
