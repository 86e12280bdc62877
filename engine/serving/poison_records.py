"""Records that crash a worker: found by what it was scoring when it died, and rejected.

worker ends, its InFlightMarker set --> CrashHistory.note --> SuspectRecords: scored and sent one by one
                                                                   | one that Kafka refuses alone, or of which two
                                                                   v workers died alone
                                                                rejected
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from saker.engine.delivery.in_flight_marker import InFlightMarker
from saker.engine.kafka.batch import Partition
from saker.engine.kafka.clients import KafkaError
from saker.engine.records.rejection import Rejection

#: A worker may be killed for another reason just when it scores a record alone; hardly twice.
_ENOUGH = 2

RecordId = tuple[int, int]  # partition, offset


@dataclass(slots=True)
class SuspectRecords:
    """Records that a worker may have ended by. A worker is handed them at its start, and has them until it is past them."""

    #: Of a partition the offset behind the last one: up to there each record is scored alone.
    behind: dict[int, int] = field(default_factory=dict)
    #: Those that are rejected unseen: with which error code Kafka refused their result, 0 for those that workers died of.
    given_up: Mapping[RecordId, int] = field(default_factory=dict)

    def among(self, positions: Mapping[Partition, int]) -> bool:
        """Whether there may be one in the batch that ends at these positions."""
        found = False
        for (_, partition), behind in positions.items() if self.behind else ():
            if partition in self.behind:
                found = True
                if behind >= self.behind[partition]:
                    del self.behind[partition]
        return found


class CrashHistory:
    """The suspected causes of crashes, kept by the parent over all restarts."""

    def __init__(self) -> None:
        self._behind: dict[int, int] = {}
        self._alone: Counter[RecordId] = Counter()
        self._given_up: dict[RecordId, int] = {}

    def note(self, marker: InFlightMarker) -> RecordId | None:
        """A worker has ended; returns a record that is now given up."""
        in_flight = marker.read()
        for partition, behind in in_flight.behind.items():
            self._behind[partition] = max(behind, self._behind.get(partition, 0))
            if in_flight.alone:
                record = (partition, behind - 1)
                self._alone[record] += 1
                if record in self._given_up or not (in_flight.refused or self._alone[record] >= _ENOUGH):
                    return None
                self._given_up[record] = in_flight.refused
                return record
        return None

    def suspects(self) -> SuspectRecords:
        return SuspectRecords(dict(self._behind), dict(self._given_up))


def why_given_up(refused: int) -> Rejection:
    """refused: Kafka's error code, 0 for a record that workers died of."""
    if refused:
        return Rejection(0, "undeliverable", f"Kafka refused its result: {KafkaError(refused).str()}")
    return Rejection(0, "worker_crash", "it crashed workers, twice while it was scored alone")
