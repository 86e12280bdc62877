"""Which of two producers a worker sends by, by how many records come at a time.

While five records of a partition are unanswered and more of it wait, librdkafka's idempotent producer spins (2.16): it takes
a core from who should answer, and fills no request. A linger of a millisecond ends that and makes a result up to two later. So
few records at a time go by a producer without one, many by a producer with one: measured at half of the highest rate, p99 is
a seventh; at the highest rate there are a fifth more records a second (`saker bench e2e`, `bench.backlog`).
"""

from __future__ import annotations

#: Milliseconds that a result waits for others, by the place of the producer.
LINGER_MS = (0.0, 1.0)
QUICK, MANY = 0, 1

_BATCHES = 32
_FROM, _BELOW = 24.0, 12.0


class Pace:
    """`place` is QUICK or MANY: by the mean of some thirty batches, and not to and fro at the border."""

    def __init__(self, places: int) -> None:
        """places: with one producer there is nothing to change."""
        self._mean, self._last = 0.0, places - 1
        self.place = QUICK

    def note(self, records: int) -> None:
        """A batch has come."""
        self._mean += (records - self._mean) / _BATCHES
        if self._mean > _FROM:
            self.place = min(MANY, self._last)
        elif self._mean < _BELOW:
            self.place = QUICK
