"""The fast path: a few records are consumed, scored and produced by one native call; Python hears of them later.

    NativeTransport.poll --by--> native FastPath: few records in flight --> answered, and more polled
                                       |                  otherwise     --> returned, for the worker to score
                                       \\--> drain_acknowledged: positions and figures of what Kafka has

One `AtLeastOnce` owns it, with everything that is in flight here. What it sends goes by the first producer of the transport, so
the order of a partition holds while that one is in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from saker.engine.config import ServeSettings
from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.kafka.batch import ConsumedBatch, Partition
from saker.engine.kafka.clients import KafkaError
from saker.engine.kafka.native_transport import NativeTransport, check
from saker.engine.kafka.topic_limits import most_bytes_for_sure
from saker.engine.metrics.counts import ANSWERED, Answered

if TYPE_CHECKING:
    from saker.engine.model.active_model import NativeModel


class FastPath:
    def __init__(self, transport: NativeTransport, input_topic: str) -> None:
        self._transport, self._input = transport, input_topic
        self._producer = transport.result_producers[0]
        self._native = transport.native.FastPath(transport.queue, self._producer)

    def use_model(self, model: NativeModel | None, marker: InFlightMarker, settings: ServeSettings) -> None:
        """model: None where a step of it is not native; nothing is answered then. marker: set while records are in work.

        Late records, and those whose results the topic may not take, are returned.
        """
        late_ms, limits = math.inf if settings.late_ms is None else settings.late_ms, settings.output_limits
        most = most_bytes_for_sure(limits)
        self._native.use_model(model, marker.cells, late_ms, (most, limits.before_ms, limits.after_ms, limits.needs_key))

    def poll(self, most: int, wait_seconds: float, few: int) -> tuple[ConsumedBatch, list[KafkaError]]:
        """As `NativeTransport.poll`; records that leave at most `few` in flight are answered."""
        return self._transport.poll(most, wait_seconds, lambda most, wait_ms: self._native.poll(most, wait_ms, few))

    @property
    def in_flight(self) -> int:
        """Records that were answered and that Kafka has not acknowledged."""
        return self._native.in_flight()

    def check(self) -> None:
        """Raises KafkaException if Kafka refused a result."""
        check(self._producer)

    def in_flight_positions(self) -> dict[Partition, int]:
        """The offset after the last record of each partition that is in flight."""
        return {(self._input, partition): at for partition, at in self._native.in_flight_positions().items()}

    def drain_acknowledged(self) -> tuple[dict[Partition, int], Answered] | None:
        """The positions that Kafka has acknowledged since the last call, and their counts.

        Raises KafkaException if Kafka refused a result.
        """
        check(self._producer)
        positions, batches, timestamps, scores, flagged = self._native.drain_acknowledged()
        if not scores:
            return None
        of_batches = np.frombuffer(batches).reshape(-1, len(ANSWERED))
        answered = Answered(of_batches, np.frombuffer(timestamps, np.int64), np.frombuffer(scores), flagged)
        return {(self._input, partition): at for partition, at in positions.items()}, answered

    def drop_partitions(self, partitions: Iterable[Partition]) -> None:
        """Another consumer has them: their positions are not reported any more."""
        for _, partition in partitions:
            self._native.drop_partition(partition)
