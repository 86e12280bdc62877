"""The velocity kernel: a layout as the native plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saker.engine.kernels import Native
from saker.engine.velocity import FUNCTIONS, Group, KeySet, Layout

if TYPE_CHECKING:
    from saker.engine.kernels import _native


def native_plan(
    native: Native, layout: Layout, width: int, hash_key: bytes, definition: bytes = bytes(32)
) -> _native.VelocityPlan:
    """width: columns of the matrix. hash_key: of keys with several parts. definition: `Contract.definition`; plans with the
    same one can use the same states.
    """
    order = sorted(layout.outputs, key=lambda one: (one.key_set, one.group))
    outputs = tuple(
        (
            one.column,
            FUNCTIONS.index(one.function),
            one.key_set,
            one.group,
            one.item,
            layout.value_word(one.value) if one.value >= 0 else -1,
            float(10**one.scale),
        )
        for one in order
    )
    key_sets = tuple(_describe(layout, one) for one in layout.key_sets)
    return native.VelocityPlan(layout.n_words, width, layout.time is not None, key_sets, outputs, hash_key, definition)


def _describe(layout: Layout, of: KeySet) -> tuple[Any, ...]:
    parts = tuple(map(layout.identity_word, of.parts))
    last = tuple((layout.value_word(value), 0, float(10**scale)) for value, scale in of.last)
    return parts, tuple(_describe_group(layout, group) for group in of.groups), last


def _describe_group(layout: Layout, of: Group) -> tuple[Any, ...]:
    columns = tuple((layout.value_word(value), needs, float(10**scale)) for (value, scale), needs in of.columns.items())
    return of.hop_ms, columns, tuple(map(layout.identity_word, of.distinct))
