"""`saker serve` without any guarantee, to measure what they cost: `python -m saker.bench.scenarios.no_guarantee serve`.

Nothing is acknowledged (acks=0), nothing is committed. Used by `saker bench backlog` only.
"""

from __future__ import annotations

from typing import Any

from saker.cli import main
from saker.engine.delivery.at_least_once import AtLeastOnce
from saker.engine.kafka import clients


class _Unacknowledged(clients.Producer):
    def __init__(self, settings: dict[str, Any], **named: Any) -> None:
        super().__init__({**settings, "enable.idempotence": False, "acks": 0, "statistics.interval.ms": 0}, **named)


def _commit_nothing(delivery: AtLeastOnce, *, wait: bool) -> None:  # noqa: ARG001
    delivery._positions.clear()


# Workers are spawned: they load this module as their main one, so that it holds for them too.
clients.Producer = _Unacknowledged  # type: ignore[misc]
AtLeastOnce._commit = _commit_nothing  # type: ignore[assignment]

if __name__ == "__main__":
    main()
