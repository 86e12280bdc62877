"""What a worker and its pool say to each other over their pipe: plain, frozen data.

worker --> pool:  Ready, Counted, ModelChanged, ModelRejected, Failed, Fenced
pool --> worker:  ChangeModel, TopicsGrown
"""

from __future__ import annotations

from dataclasses import dataclass

from saker.engine.metrics.counts import Counts
from saker.engine.model.active_model import Backends
from saker.engine.model.registry import ResolvedModel


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has joined its group and reads these partitions. Sent again with every report, in case the pool has missed
    it."""

    backends: Backends
    partitions: frozenset[int]
    #: How many of them wait for a schema of their records.
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """What the worker counted since its last report."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """The worker scores with the model that it was asked to use."""

    backends: Backends


@dataclass(frozen=True, slots=True)
class ModelRejected:
    """The worker cannot use the model that it was asked to use, and keeps its own."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The pool cannot continue."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerFenced:
    """This worker cannot continue: another member of the group has its name."""

    reason: str


@dataclass(frozen=True, slots=True)
class ChangeModel:
    model: ResolvedModel


@dataclass(frozen=True, slots=True)
class TopicsGrown:
    """The number of partitions that both output topics have."""

    writable: int


ToWorker = ChangeModel | TopicsGrown
FromWorker = Ready | Counted | ModelChanged | ModelRejected | Failed | WorkerFenced
