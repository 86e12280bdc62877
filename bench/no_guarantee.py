"""`saker serve` with every guarantee taken out, to see what they cost: `python -m bench.no_guarantee serve ...`.

Nothing is acknowledged (acks=0), nothing is committed. For `bench.backlog` alone.
"""

from __future__ import annotations

from typing import Any

import engine.kafka
import saker
from engine.waves import AtLeastOnce

_with_acknowledgement = engine.kafka.Producer


def _without(settings: dict[str, Any]) -> Any:
    return _with_acknowledgement({**settings, "enable.idempotence": False, "acks": 0, "statistics.interval.ms": 0})


def _commit_nothing(delivery: AtLeastOnce, *, wait: bool) -> None:  # noqa: ARG001
    delivery._positions.clear()


# Workers are spawned: they load this module as their main one, so that it holds for them too.
engine.kafka.Producer = _without
AtLeastOnce._commit = _commit_nothing  # type: ignore[assignment]

if __name__ == "__main__":
    saker.main()
