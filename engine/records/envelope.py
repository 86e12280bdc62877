"""Envelopes: objects around the row of a record, as change data capture and event buses write them.

    {"before": null, "after": {"id": 7, "amount": 12.5}, "op": "c"}     Debezium: the row is at `after`
    {"specversion": "1.0", "type": "payment", "data": {"id": 7}}        CloudEvents: the row is at `data`

A model whose features are fields of the row is served on such a topic by putting the row's path before theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from saker.engine.contract import Contract, Feature
from saker.engine.errors import ModelRefused, ServingError
from saker.engine.paths import parse_path, path_text
from saker.engine.records.content import Object

if TYPE_CHECKING:
    from saker.engine.records.schema_fields import SchemaField

DEBEZIUM, CLOUDEVENTS = "debezium", "cloudevents"
_PRESETS = {DEBEZIUM: "after", CLOUDEVENTS: "data"}
#: Debezium's events without a row: truncated tables, messages of the log.
_NO_ROW = ("t", "m")


@dataclass(frozen=True, slots=True)
class Envelope:
    """row: keys to the row. has_deletes: whether a row that is null is one that was deleted."""

    row: tuple[str, ...]
    has_deletes: bool = True

    def within(self, contract: Contract) -> Contract:
        """The contract for records with the envelope, of one for rows."""

        def inside(path: str) -> str:
            return path_text((*self.row, *parse_path(path)))

        def moved(feature: Feature) -> Feature:
            if (one := feature.velocity) is not None:
                of = None if one.of is None else inside(one.of)
                return replace(feature, velocity=replace(one, by=tuple(map(inside, one.by)), of=of))
            return replace(feature, source=None, path=path_text((*self.row, *feature.steps)))

        time = contract.event_time
        return replace(
            contract,
            features=tuple(map(moved, contract.features)),
            id_path=path_text((*self.row, *contract.id_steps)),
            golden=(),
            event_time=None if time is None else replace(time, path=inside(time.path)),
        )

    def inside(self, fields: Sequence[SchemaField]) -> list[SchemaField]:
        """The fields of the row, by their paths in it. Raises `ServingError` if the schema has no such row."""
        n = len(self.row)
        found = [replace(one, path=one.path[n:]) for one in fields if one.path[:n] == self.row and len(one.path) > n]
        if not found:
            raise ServingError(f"--envelope: the schema has no fields below {path_text(self.row)}")
        return found

    def is_delete(self, record: Object, *, unset_is_null: bool) -> bool:
        """Whether the record says that there is no row (any more). unset_is_null: an absent row is, too."""
        if not self.has_deletes:
            return False
        *outer, last = self.row
        fields = dict(record)
        for step in outer:
            inner = fields.get(step)
            fields = dict(inner) if isinstance(inner, Object) else {}
        row = fields.get(last, None if unset_is_null else fields)
        return row is None or (last not in fields and fields.get("op") in _NO_ROW)


def envelope_of(name: str) -> Envelope | None:
    """Of debezium, cloudevents, or the path of the row; none for an empty name. Raises `ServingError`."""
    if not name:
        return None
    try:
        steps = parse_path(_PRESETS.get(name, name))
    except ModelRefused as error:
        raise ServingError(f"--envelope: {error}") from error
    keys = tuple(step for step in steps if isinstance(step, str))
    if len(keys) < len(steps):
        raise ServingError(f"--envelope {name}: expected keys only, such as payload.after; the row cannot be in an array")
    return Envelope(keys, has_deletes=name != CLOUDEVENTS)
