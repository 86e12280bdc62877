"""From scores to Kafka: results are produced, and a record's offset is committed only behind its result.

    Taken, Scored --send--> held --> windows in flight --poll--> acknowledged --> committed

`AtLeastOnce` (at_least_once.py) commits what is acknowledged; `ExactlyOnce` (exactly_once.py) puts results and offsets into
one transaction. Either ends the worker when Kafka refuses a result, and nothing of its batch or behind it is committed: it
starts again from the committed offsets. One worker owns a delivery.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saker.engine.config import ServeSettings
from saker.engine.errors import Fenced, ServingError, StartAgain
from saker.engine.kafka.batch import Origin, Partition, Taken
from saker.engine.kafka.clients import Consumer, KafkaError, KafkaException, Message, TopicPartition
from saker.engine.kafka.rejected_record import rejected_record
from saker.engine.kafka.transport import Transport, nothing_more
from saker.engine.metrics.counts import Acknowledged, Counts
from saker.engine.pipeline import Scored

_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)


@dataclass(slots=True)
class _Held:
    """One batch whose results are not produced yet, and the positions behind it."""

    taken: Taken
    positions: dict[Partition, int]
    scored: Scored
    since: float


@dataclass(slots=True)
class _Window:
    """One batch in flight: how many acknowledgements it waits for, and the positions behind it."""

    waits_for: int
    positions: dict[Partition, int]
    timestamps_ms: NDArray[np.int64]
    scored: Scored
    since: float
    errors: list[KafkaError] = field(default_factory=list)
    #: Whether the results are delivered that no acknowledgement comes for.
    others_delivered: Callable[[], bool] = nothing_more
    #: Its last result of a partition is delivered behind all that was sent there before. A rejection tells nothing of results.
    in_order: bool = True

    @property
    def done(self) -> bool:
        return not self.waits_for and self.others_delivered()

    def acknowledge(self, error: KafkaError | None, _: Message) -> None:
        self.waits_for -= 1
        if error is not None:
            self.errors.append(error)


# While five records of a partition are unanswered and more of it wait in librdkafka's idempotent producer (2.16), its thread
# polls without a pause: it takes a core from who should answer, and where that is on this machine there may be no answer for
# seconds (measured). So a few records go as they come, by a producer without a linger. More than that are held until all before
# them are answered, and go as one wave by a producer whose linger is longer than the handing over takes: then one request of
# each partition has all of it, and nothing waits.
QUICK, MANY = 0, 1
LINGER_MS = (0.0, 1.0)


class Delivery(ABC):
    """Sends results and commits positions, batch by batch, in the order in which the batches came."""

    def __init__(self, consumer: Consumer, transport: Transport, settings: ServeSettings) -> None:
        self._consumer, self._transport, self._settings = consumer, transport, settings
        self._held: list[_Held] = []
        self._windows: deque[_Window] = deque()
        #: Records whose results are not known to be acknowledged.
        self.in_flight = 0
        #: Behind acknowledged results, and not known to be committed.
        self._positions: dict[Partition, int] = {}
        #: The highest of them so far.
        self._behind: dict[Partition, int] = {}
        self.counts = Counts()
        self._acknowledged: list[Acknowledged] = []

    @staticmethod
    @abstractmethod
    def producers(settings: ServeSettings, name: str) -> list[dict[str, Any]]:
        """Settings of the producers that it needs in its transport; `name` of the worker."""

    @property
    def holds(self) -> bool:
        """Whether results wait until those before them are acknowledged."""
        return bool(self._held)

    def _unacknowledged(self) -> list[dict[Partition, int]]:
        """The positions behind each batch that is not acknowledged."""
        return [held.positions for held in self._held] + [window.positions for window in self._windows]

    @property
    def _unanswered(self) -> int:
        """Records whose results are on their way, whoever sent them, or wait to be sent."""
        return self.in_flight + self._transport.in_flight

    def room_for_few(self) -> int:
        """Up to how many unanswered records the transport may answer what it takes by itself; 0: not now."""
        return 0

    @property
    def full(self) -> bool:
        """Whether acknowledgements must come before more is taken."""
        return self.in_flight >= self._settings.max_in_flight

    def send(self, taken: Taken, positions: dict[Partition, int], scored: Scored) -> None:
        """Produce the results of a batch with the key, partition and headers of their records, now or by a later `poll`.

        positions: those of `taken`; they are this one's now.
        """
        self.in_flight += len(taken)
        self._held.append(_Held(taken, positions, scored, time.perf_counter()))
        self._send_held()

    def _send_held(self) -> bool:
        """Produce all that is held, if that may be; says whether there was something."""
        if not self._held or not self._may_send():
            return False
        held, self._held = self._held, []
        for one in held:
            self._produce(one)
        return True

    def _produce(self, held: _Held) -> None:
        started = time.perf_counter()
        taken, scored = held.taken, held.scored
        window = _Window(0, held.positions, np.empty(len(taken), np.int64), scored, held.since)
        transport, delivered = self._transport, window.acknowledge
        try:
            expected, window.others_delivered = transport.send(taken, scored.indices, scored.results, delivered)
            for rejection in scored.rejections:
                origin = Origin(*taken.origin(rejection.index))
                value, headers = rejected_record(rejection, taken[rejection.index], origin, self._settings.rejected_max_bytes)
                transport.send_one(self._settings.rejected, value, origin, delivered, headers)
        except KafkaException as error:
            raise self._failure(error.args[0]) from error
        taken.timestamps(window.timestamps_ms)
        calls = expected + len(scored.rejections)
        window.waits_for += calls  # with a full queue some have come already
        window.in_order = not calls
        self._windows.append(window)
        scored.stage_seconds["produce"] = time.perf_counter() - started

    def poll(self, seconds: float = 0.0) -> None:
        """Take acknowledgements; commit what they allow when it is time."""
        self._transport.poll(seconds)
        self._check()
        while self._windows and self._windows[0].done and (self._windows[0].in_order or not self._transport.in_flight):
            self._complete(self._windows.popleft())
        self._send_held()
        self._commit_if_due()

    @abstractmethod
    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` until every result is acknowledged and its position committed; say whether it is."""

    def abort(self) -> None:
        """The worker ends by an error, or with results that were not acknowledged. What is not committed is read again."""
        self._held.clear()  # records that are held would keep their consumer from closing

    @abstractmethod
    def forget(self, partitions: Iterable[Partition]) -> None:
        """Partitions are another consumer's now."""

    @abstractmethod
    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What Kafka says of a commit by the consumer."""

    @abstractmethod
    def _may_send(self) -> bool:
        """Whether all that is held may be produced now; if so, it is."""

    @abstractmethod
    def _commit_if_due(self) -> None: ...

    def _check(self) -> None:
        if (failure := self._transport.failure()) is not None:
            raise self._failure(failure)

    def _collect(self) -> None:
        """What the transport answered by itself."""
        if (told := self._transport.tell()) is not None:
            positions, answered = told
            self._advance(positions)
            self.counts.add_answered(answered)

    def _advance(self, positions: dict[Partition, int]) -> None:
        """Never back: what the transport answered may be told after newer windows are complete."""
        for partition, behind in positions.items():
            if behind > self._behind.get(partition, -1):
                self._behind[partition] = self._positions[partition] = behind

    def _complete(self, window: _Window) -> None:
        if window.errors:
            raise self._failure(window.errors[0])
        self.in_flight -= len(window.timestamps_ms)
        self._advance(window.positions)
        scored = window.scored
        seconds = scored.stage_seconds
        seconds["acknowledge"] = time.perf_counter() - window.since
        self._acknowledged.append(Acknowledged(time.time(), window.timestamps_ms, seconds, scored.threshold, scored.scores))
        for rejection in scored.rejections:
            self.counts.failed[rejection.reason] += 1

    def take_counts(self) -> Counts:
        """What was counted since the last time."""
        self._collect()
        counts, self.counts = self.counts, Counts()
        counts.add_batches(self._acknowledged)
        self._acknowledged.clear()
        counts.in_flight = self._unanswered
        return counts

    def _failure(self, error: KafkaError) -> Exception:
        output = self._settings.output
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return ServingError(
                f"a record fitted the input topic and its answer does not fit {output} or {self._settings.rejected}: "
                "raise max.message.bytes of both above that of the input topic and start again; nothing is lost",
            )
        if error.code() in _FENCED:
            return Fenced(
                f"another pool produces to {output} under the same name ({error.str()}): give this one another --instance"
            )
        return StartAgain(f"a result was not delivered: {error.str()}")

    def _offsets(self) -> list[TopicPartition]:
        """To commit."""
        return [TopicPartition(topic, number, at) for (topic, number), at in self._positions.items()]
