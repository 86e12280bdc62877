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
    """The pool cannot go on."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerFenced:
    """This worker cannot go on: another member of the group has its name."""

    reason: str


@dataclass(frozen=True, slots=True)
class ChangeModel:
    model: ResolvedModel


@dataclass(frozen=True, slots=True)
class TopicsGrown:
    """The topics of results and of rejections have so many partitions."""

    writable: int


ToWorker = ChangeModel | TopicsGrown
FromWorker = Ready | Counted | ModelChanged | ModelRejected | Failed | WorkerFenced
