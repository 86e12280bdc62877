"""What became of every record: input and both output topics read back and compared."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from saker.engine.kafka.reader import Record, read_topic
from tests.support.serving import Topics


@dataclass
class Ledger:
    """Counts of records; `disorder` of results that are neither the next of their partition nor the start of a replay."""

    sent: int = 0
    scored: int = 0
    rejected: int = 0
    lost: int = 0
    repeated: int = 0
    wrong: int = 0
    disorder: int = 0
    versions: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        names = ("sent", "scored", "rejected", "lost", "repeated", "wrong", "disorder")
        head, line = " | ".join(names), " | ".join(f"{getattr(self, name):>{len(name)}}" for name in names)
        return f"\n{head}\n{line}\nversions: {', '.join(sorted(self.versions))}"


def balance(
    bootstrap_servers: str,
    topics: Topics,
    sent: int,
    bad: Collection[bytes],
    scores_of: Callable[[list[bytes]], Mapping[Any, float]],
    tolerance: float = 0.0,
    *,
    identify: Callable[[bytes], Any] = lambda value: orjson.loads(value)["TransactionID"],
    id_field: str = "TransactionID",
) -> Ledger:
    """Wait until each of the `sent` records has come out, and compare. Prints the ledger.

    bad: values that are to be rejected. scores_of: the score of each identifier of the other ones. tolerance: how far one may
    be from that, relatively. identify: a record's identifier, which results have in `id_field`.
    """

    def identifier(result: Record) -> Any:
        return orjson.loads(result.value or b"")[id_field]

    given = read_topic(bootstrap_servers, topics.raw, sent)
    good = [record for record in given if (record.value or b"") not in bad]
    scores = scores_of([record.value or b"" for record in good])
    place = {identify(record.value or b""): record for record in good}
    ledger = Ledger(sent=len(given))
    results = read_topic(bootstrap_servers, topics.scored, len(good), distinct=identifier)
    refused = read_topic(bootstrap_servers, topics.rejected, len(given) - len(good), distinct=_origin)
    ledger.rejected = len({_origin(record) for record in refused})
    by_partition: dict[int, list[int]] = defaultdict(list)
    for record in results:
        answer = orjson.loads(record.value or b"")
        origin = place[answer[id_field]]
        by_partition[record.partition].append(origin.offset)
        ledger.versions.add(answer["model"])
        right = math.isclose(answer["fraud_score"], scores[answer[id_field]], rel_tol=tolerance)
        ledger.wrong += not right or origin.partition != record.partition
    distinct = {identifier(record) for record in results}
    ledger.scored = len(distinct)
    ledger.lost = len(given) - ledger.scored - ledger.rejected
    ledger.repeated = len(results) - len(distinct) + len(refused) - ledger.rejected
    in_order: dict[int, list[int]] = defaultdict(list)
    for record in place.values():
        in_order[record.partition].append(record.offset)
    for partition, offsets in by_partition.items():
        rank = {offset: at for at, offset in enumerate(sorted(in_order[partition]))}
        ranks = [rank[offset] for offset in offsets]
        ledger.disorder += sum(after > before + 1 for before, after in itertools.pairwise(ranks))
    print(ledger)  # noqa: T201 - it is what one wants to see
    return ledger


def _origin(record: Record) -> tuple[str, str]:
    return record.header("saker.error.partition"), record.header("saker.error.offset")
