"""Records that kill a worker: found by what it was scoring when it died, and rejected.

    worker: scoring(positions) -> decode, score, encode -> done()
    pool, when the worker has died: CrashHistory.note(marker) -> SuspectRecords: scored one by one; two deaths: rejected

A few words of memory that both share, written without a system call. Each worker has one; its parent makes it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from saker.engine.kafka.batch import Partition

_SPAWN = multiprocessing.get_context("spawn")
#: A batch has records of so many partitions at most that are written down; of more, the first ones.
_ROOM = 512
#: A worker may be killed for another reason just when it scores a record alone; hardly twice.
_ENOUGH = 2


class InFlightMarker:
    """Cells: how many partitions (0 when nothing is being scored), whether it is one record alone, then of each partition its
    number and the offset behind the last record."""

    def __init__(self) -> None:
        #: native/fast_path.c writes them, too.
        self.cells: ctypes.Array[ctypes.c_int64] = _SPAWN.RawArray(ctypes.c_int64, 2 + 2 * _ROOM)

    def scoring(self, positions: Mapping[Partition, int], *, alone: bool) -> None:
        """positions: the offsets behind the records of each partition. alone: there is only one."""
        cells, place = self.cells, 2
        for (_, partition), behind in positions.items():
            if place == len(cells):
                break
            cells[place], cells[place + 1] = partition, behind
            place += 2
        cells[1] = alone
        cells[0] = (place - 2) // 2

    def done(self) -> None:
        self.cells[0] = 0

    def read(self) -> tuple[dict[int, int], bool]:
        """Of each partition the offset behind what was being scored, nothing if nothing was; and whether it was one record."""
        cells = self.cells
        return {cells[2 + 2 * place]: cells[3 + 2 * place] for place in range(cells[0])}, bool(cells[1])


@dataclass(slots=True)
class SuspectRecords:
    """Records that a worker may have died of. A worker is handed them at its start, and has them until it is past them."""

    #: Of a partition the offset behind the last one: up to there each record is scored alone.
    behind: dict[int, int] = field(default_factory=dict)
    #: (partition, offset) of those that are rejected unseen.
    given_up: frozenset[tuple[int, int]] = frozenset()

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
    """What workers died of, as far as one can tell: kept by the parent, over all restarts."""

    def __init__(self) -> None:
        self._behind: dict[int, int] = {}
        self._alone: Counter[tuple[int, int]] = Counter()

    def note(self, marker: InFlightMarker) -> tuple[int, int] | None:
        """A worker has died; returns (partition, offset) of a record that is now given up."""
        scored, alone = marker.read()
        for partition, behind in scored.items():
            self._behind[partition] = max(behind, self._behind.get(partition, 0))
            if alone:
                record = (partition, behind - 1)
                self._alone[record] += 1
                return record if self._alone[record] == _ENOUGH else None
        return None

    def suspects(self) -> SuspectRecords:
        given_up = frozenset(record for record, deaths in self._alone.items() if deaths >= _ENOUGH)
        return SuspectRecords(dict(self._behind), given_up)
