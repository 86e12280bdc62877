"""What the pool knows of its topics and of its group: asked every two seconds, by a thread of the parent.

brokers, coordinator --GroupWatch.check--> GroupWatch.seen --> Pool, and the metrics of lag

Whatever Kafka does, only this thread waits for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from saker.engine.config import ServeSettings
from saker.engine.kafka import admin, clients
from saker.engine.kafka.groups import Described, GroupAdmin, Lags
from saker.engine.metrics.exporter import PoolMetrics

_log = logging.getLogger("saker")

_SECONDS = 2.0
_NOTICED_SECONDS = 20.0  # by then members have noticed partitions that were added: they look every ten seconds
_UNREAD_SECONDS = 6.0  # longer than a rebalance takes in which partitions are given up first and given to others later


@dataclass(frozen=True, slots=True)
class Seen:
    """At one time. What is not known any more is as it was."""

    #: Whether a broker answers.
    broker: bool
    #: Of the input; and how many of them the topics of results and of rejections have, too.
    partitions: int
    writable: int
    #: Of the input; empty where the broker has no such thing.
    topic_id: str
    #: Topics that are not there.
    missing: frozenset[str] = frozenset()
    #: Partitions of the input that no member of the group has, as far as can be seen; None while the group rebalances.
    unread: frozenset[int] | None = None


class GroupWatch:
    """`seen` is the newest; only `check` changes it."""

    def __init__(self, settings: ServeSettings, instances: Iterable[str], metrics: PoolMetrics, seen: Seen) -> None:
        """instances: the static names of this pool's workers. seen: what is already known."""
        self._settings, self._instances, self._metrics, self.seen = settings, frozenset(instances), metrics, seen
        self._admin = clients.admin(settings.bootstrap_servers)
        self._lags = Lags(settings.bootstrap_servers, settings.group)
        self._group = GroupAdmin(settings.bootstrap_servers)
        # A group of the newer protocol cannot be asked, and does not get stuck: the broker assigns.
        self._can_describe = self._group.possible and settings.group_protocol == "classic"
        self._unread: tuple[frozenset[int], float] = (frozenset(), 0.0)
        self._grown = self._due = 0.0

    def check(self, *, often: bool) -> None:
        """Ask, if it is time to. often: it is, each time."""
        if not often and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _SECONDS
        settings, before = self._settings, self.seen
        try:
            leaders = self._lags.leaders(settings.input)
        except clients.KafkaException:
            self.seen = replace(before, broker=False, unread=None)
            self._metrics.lags(None)
            if before.broker:
                _log.warning("no Kafka broker answers at %s; waiting for it", settings.bootstrap_servers)
            return
        self._metrics.lags(self._lags.ask(settings.input, leaders))
        seen = self._topics(replace(before, broker=True))
        partitions = seen.partitions
        if partitions != before.partitions:
            self._grown = time.monotonic()
        group = self._group.describe(settings.group, settings.input) if self._can_describe else None
        unread = None if self._can_describe else frozenset[int]()
        if group is not None and group.stable:
            unread = group.unread(partitions)
            self._heal(unread, group)
        else:
            self._unread = (frozenset(), 0.0)
        self._metrics.unread(len((unread or frozenset()) | frozenset(range(seen.writable, partitions))))
        self.seen = replace(seen, unread=unread)

    def _topics(self, before: Seen) -> Seen:
        """As they are now; as before while the controller, which alone knows ids, does not answer."""
        settings = self._settings
        names = (settings.input, settings.output, settings.rejected)
        try:
            shapes = admin.shapes(self._admin, names)
        except clients.BrokerUnreachable:
            return before
        source = shapes.get(settings.input)
        outputs = [shapes[name].partitions for name in names[1:] if name in shapes]
        return replace(
            before,
            partitions=before.partitions if source is None else source.partitions,
            writable=min(outputs) if outputs else before.writable,
            topic_id=before.topic_id if source is None else source.topic_id,
            missing=frozenset(names) - shapes.keys(),
        )

    def _heal(self, unread: frozenset[int], group: Described) -> None:
        """Partitions without an owner stay so in a stable group: if a worker dies while it hands partitions over, it returns
        under its name without the rebalance that would assign them.

        So remove the worker of this pool with the fewest partitions from the group. It rejoins, and all are assigned.
        """
        since = self._unread[1] if self._unread[0] == unread else time.monotonic()
        self._unread = (unread, since)
        now = time.monotonic()
        if not unread or now - since < _UNREAD_SECONDS or now - self._grown < _NOTICED_SECONDS:
            return
        mine = {name: len(group.members[name]) for name in self._instances & group.members.keys()}
        if not mine:
            return
        name = min(mine, key=lambda one: (mine[one], one))
        numbers = ", ".join(map(str, sorted(unread)))
        _log.warning(
            "partitions %s of %s have no reader; worker %s rejoins group %s", numbers, self._settings.input, name,
            self._settings.group,
        )  # fmt: skip
        self._group.remove(self._settings.group, [name])
        self._unread = (frozenset(), 0.0)
