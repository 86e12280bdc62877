"""`saker serve` without any guarantee, to measure what they cost: `python -m saker.bench.scenarios.no_guarantee serve`.

Nothing is acknowledged (acks=0), nothing is committed. For `saker.bench.scenarios.backlog` alone.
"""

from __future__ import annotations

from typing import Any

from saker.cli import main
from saker.engine.delivery.at_least_once import AtLeastOnce
from saker.engine.kafka import clients

_with_acknowledgement = clients.Producer


def _without(settings: dict[str, Any]) -> Any:
    return _with_acknowledgement({**settings, "enable.idempotence": False, "acks": 0, "statistics.interval.ms": 0})


def _commit_nothing(delivery: AtLeastOnce, *, wait: bool) -> None:  # noqa: ARG001
    delivery._positions.clear()


# Workers are spawned: they load this module as their main one, so that it holds for them too.
clients.Producer = _without
AtLeastOnce._commit = _commit_nothing  # type: ignore[assignment]

if __name__ == "__main__":
    main()
