"""One worker process: Kafka in, Kafka out. Its model is proven before the first record is taken."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from saker.engine.config import EXACTLY_ONCE, ServeSettings
from saker.engine.delivery.at_least_once import AtLeastOnce
from saker.engine.delivery.base import Delivery
from saker.engine.delivery.exactly_once import ExactlyOnce
from saker.engine.errors import Fenced, ModelRefused, SakerError, ServingError, StartAgain
from saker.engine.kafka import clients, groups
from saker.engine.kafka.batch import Partition, Taken
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, TopicPartition
from saker.engine.kafka.native_transport import open_transport, producer_settings
from saker.engine.log import log_to_stderr
from saker.engine.model.active_model import ActiveModel, Backends
from saker.engine.model.registry import Located
from saker.engine.pipeline import given_up, score_batch
from saker.engine.serving.poison_records import Journal, Suspects, singles

_log = logging.getLogger("saker")

#: What a worker tells its parent, as (word, value): READY its `Backends`, COUNTED its `Counts` since the last time,
#: FAILED why the pool cannot go on, FENCED why this worker cannot. The parent sends a `Located` when the model changes, and
#: gets CHANGED with the new `Backends`, or REFUSED with the reason.
READY, COUNTED, FAILED, FENCED, CHANGED, REFUSED = "ready", "counted", "failed", "fenced", "changed", "refused"

_TELL_SECONDS = 0.25
_IDLE_SECONDS = 0.1
_WAITING_SECONDS = 0.001
_SESSION_TIMEOUT_MS = 10_000  # a worker that does not come back holds its partitions for so long
_HEARTBEAT_MS = 500  # a member learns of a rebalance by its next heartbeat; partitions that move wait for that


def main(
    slot: int, settings: ServeSettings, located: Located, parent: Connection, journal: Journal, suspects: Suspects
) -> None:
    """Entry point of the process. What a user must mend is told to the parent; anything else is a crash."""
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        worker = Worker(slot, settings, load(located, settings), parent, journal, suspects)
        gc.collect()
        gc.freeze()  # what is here now stays: a collection that walks it takes 20 ms, and none of it is ever free
        signal.signal(signal.SIGTERM, worker.stop)
        worker.run()
    except Fenced as error:
        parent.send((FENCED, str(error)))
    except SakerError as error:
        parent.send((FAILED, str(error)))
    except StartAgain as error:
        _log.error("worker %d gives up: %s", slot, error)
    except Exception:  # noqa: BLE001 - the parent sees only that it ended
        _log.exception("worker %d ends by an error", slot)
    else:
        return
    # At once. With a broker that went away, librdkafka may wait for ever in a call that has a timeout (of a transaction, 2.16)
    # or while a client is closed; who starts again under this worker's names ends what it leaves open.
    os._exit(1)


def load(located: Located, settings: ServeSettings) -> ActiveModel:
    """The proven model; raises `ModelRefused` if it is not, or not the file that the parent found."""
    model = ActiveModel.load(located.path, located.name, settings.kernels)
    if model.sha256 != located.sha256:
        raise ModelRefused(f"model {located.name}: SHA-256 of its file is {model.sha256}, it was {located.sha256} when found")
    return model


def instance_of(settings: ServeSettings, slot: int) -> str:
    """A worker's name in its group: the same through every restart."""
    return f"{settings.instance}-{slot}"


def _member(settings: ServeSettings, name: str) -> dict[str, str | int]:
    """What a worker is in its group.

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


class _Loading(threading.Thread):
    """A model that is loaded and proven beside the one that scores."""

    def __init__(self, located: Located, settings: ServeSettings) -> None:
        super().__init__(name="loading", daemon=True)
        self._located, self._settings = located, settings
        self.loaded: ActiveModel | ModelRefused | None = None
        self.start()

    def run(self) -> None:
        try:
            self.loaded = load(self._located, self._settings)
        except ModelRefused as error:
            self.loaded = error


class Worker:
    """Polls, scores, sends and commits until it is told to stop."""

    def __init__(
        self,
        slot: int,
        settings: ServeSettings,
        model: ActiveModel,
        parent: Connection,
        journal: Journal,
        suspects: Suspects,
    ) -> None:
        self._settings, self._parent = settings, parent
        self._journal, self._suspects = journal, suspects
        self._parent_id = os.getppid()
        self._stopping = self._joined = False
        self._loading: _Loading | None = None
        self._told = time.monotonic()
        self._assigned: set[Partition] = set()
        name = instance_of(settings, slot)
        self._consumer = clients.consumer(
            settings.bootstrap_servers,
            **{
                "group.id": settings.group,
                **_member(settings, name),
                "on_commit": self._on_commit,
                # An offset that is not there any more is told, not jumped over.
                "auto.offset.reset": "error",
            },
        )
        deliver: type[Delivery] = ExactlyOnce if settings.delivery == EXACTLY_ONCE else AtLeastOnce
        of_transport = producer_settings(settings.kernels)
        producers = clients.producers(
            settings.bootstrap_servers, [of_transport | one for one in deliver.producers(settings, name)]
        )
        self._transport, why_public = open_transport(
            self._consumer, producers, settings.output, self._assigned, settings.kernels
        )
        self._why_public = why_public
        self._adopt(model)
        self._delivery = deliver(self._consumer, self._transport, settings)

    def _adopt(self, model: ActiveModel) -> None:
        self._model = model
        self._transport.answer_by(model.native, self._journal.cells, self._settings.late_ms)

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
                self._step()
                self._delivery.poll()
                if time.monotonic() - self._told >= _TELL_SECONDS:
                    self._tell()
                    self._follow()
                    # A parent that was killed sends no signal; its children go to another parent.
                    self._stopping |= os.getppid() != self._parent_id
            if not self._delivery.drain(self._settings.drain_seconds):
                _log.warning("not everything was acknowledged in time; the rest is read again")
                self._delivery.abort()
        except Exception:
            self._delivery.abort()
            raise
        self._tell()
        self._transport.close()
        self._consumer.close()

    def _step(self) -> None:
        """Take a batch and score it. It is gone when this returns: a client does not end while its records are held."""
        if self._delivery.full:
            self._delivery.poll(_IDLE_SECONDS)
            return
        # Acknowledgements are taken between two polls, so the wait is short while some are due; results that are held go
        # with them, so then they are what is waited for.
        holds = self._delivery.holds
        wait_seconds = _WAITING_SECONDS if self._delivery.in_flight else _IDLE_SECONDS
        few = 0 if self._suspects.behind else self._delivery.room_for_few()
        taken, errors = self._transport.take(self._settings.max_batch, 0.0 if holds else wait_seconds, few)
        if taken:
            self._score(taken)
        elif holds:
            self._delivery.poll(_WAITING_SECONDS)
        for error in errors:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._delivery.drain(self._settings.drain_seconds)
            _check(error, self._settings)

    def _score(self, taken: Taken) -> None:
        positions = taken.positions()
        if self._suspects.among(positions):
            for single in singles(taken):
                _, partition, offset, *_ = single.origin(0)
                unseen = (partition, offset) in self._suspects.given_up
                self._score_batch(single, single.positions(), alone=True, unseen=unseen)
        else:
            self._score_batch(taken, positions)

    def _score_batch(self, taken: Taken, positions: dict[Partition, int], *, alone: bool = False, unseen: bool = False) -> None:
        if unseen:
            scored = given_up(self._model)
        else:
            self._journal.scoring(positions, alone=alone)
            scored = score_batch(self._model, taken, self._late(taken))
            self._journal.done()
        self._delivery.send(taken, positions, scored)

    def _late(self, taken: Taken) -> NDArray[np.bool_] | None:
        """Which records are older than they may be when they arrive, if there is such a limit."""
        if self._settings.late_ms is None:
            return None
        timestamps = np.empty(len(taken), np.int64)
        taken.timestamps(timestamps)
        late = timestamps < time.time() * 1000 - self._settings.late_ms
        self._delivery.counts.late += int(np.count_nonzero(late))
        return late

    def _tell(self) -> None:
        self._told = time.monotonic()
        counts = self._delivery.take_counts()
        with contextlib.suppress(OSError):  # the parent is gone; the loop ends by itself
            self._parent.send((COUNTED, counts))
            if self._joined:
                self._parent.send((READY, self._backends()))

    def _backends(self) -> Backends:
        return self._model.backends.on(self._transport.backend, self._why_public)

    def _follow(self) -> None:
        """Load the model that the parent asks for, and take it when it is there: between two batches."""
        if self._loading is None:
            if self._parent.poll():
                self._loading = _Loading(self._parent.recv(), self._settings)
            return
        if self._loading.is_alive():
            return
        loaded, self._loading = self._loading.loaded, None
        if isinstance(loaded, ActiveModel):
            self._adopt(loaded)
            answer: tuple[str, object] = (CHANGED, self._backends())
        elif loaded is None:
            raise RuntimeError("the thread that loads a model ended without one")
        else:
            answer = (REFUSED, str(loaded))
        with contextlib.suppress(OSError):
            self._parent.send(answer)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joined = True
        self._delivery.counts.rebalances += 1
        self._transport.follow(_names(partitions))
        self._assigned |= _names(partitions)
        try:
            starts = groups.starts(consumer, partitions)
        except KafkaException as error:
            raise StartAgain(
                f"Kafka does not tell where to read on: {error.args[0].str()}; if this stays, a transaction hangs: "
                'see "When others are away" in docs/operations.md'
            ) from error
        for at, committed, deleted in starts:
            if deleted is not None:
                self._delivery.counts.deleted += deleted
                _log.error(
                    "partition %d of %s: nothing is at offset %d any more, going on at %d; %d records were deleted "
                    "before they were scored: see retention.ms of the topic, and the lag",
                    at.partition, at.topic, committed, at.offset, deleted,
                )  # fmt: skip
        consumer.incremental_assign([start.at for start in starts])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._delivery.on_commit(error, partitions)

    def _on_revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight before another member reads on from the committed offsets."""
        self._delivery.drain(self._settings.drain_seconds)
        self._on_lost(None, partitions)

    def _on_lost(self, _: object, partitions: list[TopicPartition]) -> None:
        """What is not committed is read again by the new owner: twice, not lost."""
        self._assigned -= _names(partitions)
        self._delivery.forget(_names(partitions))


def _names(partitions: list[TopicPartition]) -> set[Partition]:
    return {(partition.topic, partition.partition) for partition in partitions}


def _check(error: KafkaError, settings: ServeSettings) -> None:
    """Errors of a consumer pass by themselves, unless they are fatal or the topic is gone."""
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise StartAgain(f"an offset of {settings.input} to read on at is not there any more: {error.str()}")
    fatal = error.fatal() or error.code() == KafkaError._FATAL
    if fatal and "fenced" in error.str():
        raise Fenced(
            f"another pool serves group {settings.group} as instance {settings.instance}: give this one another --instance",
        )
    if fatal or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise ServingError(f"topic {settings.input} at {settings.bootstrap_servers}: {error.str()}")
