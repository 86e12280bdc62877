"""Partitions whose next record names a schema that is not known yet: they wait, the others are read.

    unknown id --ask--> a thread --> registry        the partition is paused at that record
    its answer --------------------> learned, and the partition resumed (at the next report)

A registry that does not answer is asked again until it does: no record is rejected for that.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable

from saker.engine.errors import SakerError
from saker.engine.kafka.batch import ConsumedBatch, Partition, SelectedRecords
from saker.engine.kafka.clients import Consumer, TopicPartition
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Schema, Schemas, UnknownSchema

_log = logging.getLogger("saker")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
#: Partitions that wait for longer make the pool not ready.
_LONG_SECONDS = 1.0


class AskedSchemas:
    """`Schemas` that never wait: `ask` has a thread fetch one, and `get` gives it from then on."""

    def __init__(self, source: Schemas) -> None:
        self._source = source
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._known: dict[int, Schema | UnknownSchema] = {}  # written by the thread, read by the worker
        self._pending: set[int] = set()  # the worker's
        self._thread: threading.Thread | None = None

    def get(self, number: int) -> Schema:
        found = self._known.get(number)
        if found is None:
            raise SakerError(f"schema {number} is being fetched")
        if isinstance(found, UnknownSchema):
            del self._known[number]  # the registry may have it when it is asked again
            raise found
        return found

    def number_of(self, guid: bytes) -> int | None:
        return self._source.number_of(guid)

    def ask(self, number: int) -> bool:
        """Whether `get` has an answer; if not, the thread fetches it."""
        if number in self._known:
            self._pending.discard(number)
            return True
        if number not in self._pending:
            self._pending.add(number)
            self._asked.put(number)
            if self._thread is None:
                self._thread = threading.Thread(target=self._fetch, name="schemas", daemon=True)
                self._thread.start()
        return False

    def _fetch(self) -> None:
        while True:
            number, pause, logged = self._asked.get(), _FIRST_PAUSE, ""
            while number not in self._known:
                try:
                    self._known[number] = self._source.get(number)
                except UnknownSchema as error:
                    self._known[number] = error
                except SakerError as error:
                    if str(error) != logged:
                        logged = str(error)
                        _log.error("cannot fetch schema %d: %s; its partitions wait, retrying", number, error)
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
            if logged:
                _log.info("schema %d is fetched", number)


class SchemaWait:
    """One worker owns it."""

    def __init__(self, schemas: AskedSchemas, consumer: Consumer) -> None:
        self._schemas, self._consumer = schemas, consumer
        self._held: dict[Partition, tuple[int, float]] = {}

    def ready(self, decoder: Decoder, batch: ConsumedBatch) -> ConsumedBatch:
        """What can be decoded of a batch. The rest is read again when its schema is known."""
        unknown = decoder.unknown_schemas(batch)
        missing = {number for number in {number for _, number in unknown} if not self._learned(decoder, number)}
        if not missing:
            return batch
        origins = [batch.origin(index) for index in range(len(batch))]
        first: dict[Partition, tuple[int, int]] = {}
        for index, number in unknown:
            if number in missing:
                first.setdefault((origins[index].topic, origins[index].partition), (origins[index].offset, number))
        for partition, (offset, number) in first.items():
            self._hold(partition, offset, number)
        return SelectedRecords(
            batch,
            [
                index
                for index, origin in enumerate(origins)
                if (start := first.get((origin.topic, origin.partition))) is None or origin.offset < start[0]
            ],
        )

    def _learned(self, decoder: Decoder, number: int) -> bool:
        if not self._schemas.ask(number):
            return False
        decoder.learn(number)
        return True

    def _hold(self, partition: Partition, offset: int, number: int) -> None:
        at = TopicPartition(*partition, offset)
        # In this order: a pause notes what was consumed last as the place to continue at.
        self._consumer.pause([at])
        self._consumer.seek(at)
        self._held[partition] = (number, time.monotonic())
        _log.info("partition %d of %s waits for schema %d at offset %d", partition[1], partition[0], number, offset)

    def resume(self) -> None:
        """Resume the partitions whose schema has arrived."""
        arrived = [partition for partition, (number, _) in self._held.items() if self._schemas.ask(number)]
        if arrived:
            self.drop_partitions(arrived)
            _log.info("partitions %s are read again", ", ".join(str(number) for _, number in sorted(arrived)))

    def drop_partitions(self, partitions: Iterable[Partition]) -> None:
        """They are read again: by this consumer, or by the one that has them now."""
        if held := [partition for partition in partitions if self._held.pop(partition, None)]:
            self._consumer.resume([TopicPartition(*partition) for partition in held])

    @property
    def long(self) -> int:
        """How many partitions wait for more than a moment."""
        now = time.monotonic()
        return sum(now - since > _LONG_SECONDS for _, since in self._held.values())
