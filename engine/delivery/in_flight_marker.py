"""What a worker is busy with, in memory that outlives it: by this its pool finds the record that it died of.

    worker: note(positions) -> decode, score, encode, produce -> done()
    pool, when the worker has died: read()

A few words that both share, written without a system call. Each worker has one; its parent makes it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Mapping
from typing import NamedTuple

from saker.engine.kafka.batch import Partition

_SPAWN = multiprocessing.get_context("spawn")
#: Most partitions of a batch that are noted; further ones are left out.
_ROOM = 512
_FIRST = 3  # cell of the first partition; native/fast_path.c writes them, too


class InFlight(NamedTuple):
    """behind: of each partition the offset after the last record, empty if nothing was in work. alone: it was one record.

    refused: the error code with which Kafka refused a result of them, 0 where it did not.
    """

    behind: dict[int, int]
    alone: bool
    refused: int


class InFlightMarker:
    """Cells: how many partitions (0: nothing is in work), whether it is one record alone, the error code of a refusal, then of
    each partition its number and the offset after the last record."""

    def __init__(self) -> None:
        self.cells: ctypes.Array[ctypes.c_int64] = _SPAWN.RawArray(ctypes.c_int64, _FIRST + 2 * _ROOM)

    def note(self, positions: Mapping[Partition, int], *, alone: bool, refused: int = 0) -> None:
        """positions: the offsets after the records of each partition. alone: there is only one."""
        cells, place = self.cells, _FIRST
        for (_, partition), behind in positions.items():
            if place + 1 >= len(cells):
                break
            cells[place], cells[place + 1] = partition, behind
            place += 2
        cells[1], cells[2] = alone, refused
        cells[0] = (place - _FIRST) // 2

    def done(self) -> None:
        self.cells[0] = 0

    def read(self) -> InFlight:
        cells = self.cells
        behind = {cells[_FIRST + 2 * place]: cells[_FIRST + 1 + 2 * place] for place in range(cells[0])}
        return InFlight(behind, bool(cells[1]), cells[2])
