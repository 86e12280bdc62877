"""A plan for a contract as tables for native/rows/protobuf.c.

While a message is read, each value that the contract needs is kept in a cell, where a later one replaces it; afterwards the
cells are used in the order of the reference.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import accumulate, chain

from saker.engine.field_tree import Branch, Field
from saker.engine.kernels.row_kernel import NativeTables
from saker.engine.records.proto_messages import Enum, Message, ProtoField
from saker.engine.records.protobuf import Item, Plan

# enum proto_kind of native/rows/protobuf.h; text: a string that must be UTF-8
_KINDS = {
    name: number
    for number, name in enumerate(
        ("double", "float", "int64", "uint64", "int32", "uint32", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
         "sfixed64", "bool", "string", "text", "bytes", "enum", "time", "message", "elements", "map")
    )
}  # fmt: skip
_WIRES = {
    "double": 1, "fixed64": 1, "sfixed64": 1, "float": 5, "fixed32": 5, "sfixed32": 5, "string": 2, "bytes": 2, "message": 2,
}  # fmt: skip


@dataclass(slots=True)
class _Action:
    """What is done with a field: a proto_action of native/rows/protobuf.h."""

    number: int
    wire: int
    kind: int
    #: 0 is the cell of what is not needed.
    cell: int = 0
    #: Of a message, or of elements that no pair names.
    table: int = -1
    #: (index or place of the key, cell, table, first cell to clear, how many)
    first_pair: int = 0
    pairs: int = 0
    #: Cells of the other members of the oneof.
    first_clear: int = 0
    clear: int = 0
    element: int = 0
    #: Of a closed enum.
    first_number: int = 0
    numbers: int = 0
    key: int = 0
    keys: int = 0
    #: The final that the value may go to at once, since nothing that follows can take it back; -1: none.
    final: int = -1

    def row(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)


@dataclass(slots=True)
class _Tables:
    #: (first action, how many)
    tables: list[tuple[int, int]] = field(default_factory=list)
    actions: list[_Action] = field(default_factory=list)
    #: (field of the decoder, kind, cell, cell of the message around it, is its presence known, enum), a proto_final
    finals: list[tuple[int, ...]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    keys: list[tuple[bytes, ...]] = field(default_factory=list)
    cells: int = 1


def _kind(one: ProtoField) -> int:
    return _KINDS["text" if one.kind == "string" and one.is_utf8 else one.kind]


class _Builder:
    def __init__(self, entries: dict[int, int]) -> None:
        self._entries, self.made = entries, _Tables()
        self._blank: dict[int, int] = {}
        self._enums: dict[int, tuple[int, int, int]] = {}

    def table(self, plan: Plan, node: Branch | None, inside: int, *, stays: bool = False) -> int:
        """The number of a table. node: what is read there, None for nothing. inside: the cell of the message, -1 of the record.
        stays: nothing that follows can take the message back, as another member of a oneof would.
        """
        if node is None and id(plan) in self._blank:
            return self._blank[id(plan)]
        number = self._new_table()
        if node is None:
            self._blank[id(plan)] = number
        actions, cells = [], []
        for item in plan.items:
            child = None if node is None or item.how == "sibling" else node.children.get(item.field.name)
            first = self.made.cells
            actions.append(self._action(item, child, inside, stays=stays and item.field.oneof is None))
            cells.append(range(first, self.made.cells))
        for place, (item, action) in enumerate(zip(plan.items, actions, strict=True)):
            if item.field.oneof is not None:
                others = [at for at, one in enumerate(plan.items) if one.field.oneof == item.field.oneof and at != place]
                action.first_clear, action.clear = self._place([cell for other in others for cell in cells[other]])
        self._set_table(number, actions)
        return number

    def _new_table(self) -> int:
        self.made.tables.append((0, 0))
        return len(self.made.tables) - 1

    def _set_table(self, number: int, actions: list[_Action]) -> None:
        self.made.tables[number] = (len(self.made.actions), len(actions))
        self.made.actions += sorted(actions, key=lambda action: action.number)

    def _cell(self) -> int:
        self.made.cells += 1
        return self.made.cells - 1

    def _place(self, numbers: list[int]) -> tuple[int, int]:
        self.made.places += numbers
        return len(self.made.places) - len(numbers), len(numbers)

    def _enum(self, one: ProtoField) -> tuple[int, int, int]:
        """(first of its sorted numbers in places, how many, first of their names in texts)"""
        if not isinstance(one.type, Enum):
            return 0, 0, 0
        if id(one.type) not in self._enums:
            numbers = sorted(one.type.names)
            self._enums[id(one.type)] = (*self._place(numbers), len(self.made.texts))
            self.made.texts += [one.type.names[number].encode() for number in numbers]
        return self._enums[id(one.type)]

    def _action(self, item: Item, child: Branch | Field | None, inside: int, *, stays: bool) -> _Action:
        one = item.field
        if item.how in ("elements", "map"):
            return self._container(item, child if isinstance(child, Branch) else None)
        action = _Action(one.number, _WIRES.get(one.kind, 0), _kind(one))
        if one.kind == "message":
            plan = item.plan or Plan(Message(""))
            action.cell = 0 if child is None else self._cell()
            action.table = self._message(plan, child, action.cell, stays=stays)
            return action
        self._close(action, one)
        if isinstance(child, Field):
            action.cell = self._cell()
            if stays and (one.has_presence or inside < 0):
                action.final = len(self.made.finals)
            self._final(child, one, action.cell, inside, has_presence=one.has_presence)
        return action

    def _message(self, plan: Plan, child: Branch | Field | None, cell: int, *, stays: bool = False) -> int:
        return self._single_value(plan, child, cell) if isinstance(child, Field) else self.table(plan, child, cell, stays=stays)

    def _close(self, action: _Action, one: ProtoField) -> None:
        if isinstance(one.type, Enum) and one.type.is_closed:
            action.first_number, action.numbers, _ = self._enum(one)

    def _single_value(self, plan: Plan, child: Field, inside: int) -> int:
        """The table of a timestamp or a wrapper, which is read as one value."""
        number = self._new_table()
        cells = [self._cell() for _ in plan.items]
        self._set_table(
            number,
            [
                _Action(item.field.number, _WIRES.get(item.field.kind, 0), _kind(item.field), cell)
                for item, cell in zip(plan.items, cells, strict=True)
            ],
        )
        if len(cells) > 1:  # seconds and nanos
            self.made.finals.append((self._entries[id(child)], _KINDS["time"], cells[0], inside, 0, cells[1], 0, 0))
        else:
            self._final(child, plan.items[0].field, cells[0], inside, has_presence=False)
        return number

    def _final(self, child: Field, one: ProtoField, cell: int, inside: int, *, has_presence: bool) -> None:
        final = (self._entries[id(child)], _kind(one), cell, inside, int(has_presence), *self._enum(one))
        self.made.finals.append(final)

    def _container(self, item: Item, node: Branch | None) -> _Action:
        one = element = item.field
        action = _Action(one.number, 2, _KINDS[item.how])
        if item.how == "map" and isinstance(one.type, Message):
            key, element = one.type.fields
            action.key = _kind(key)
        action.wire = _WIRES.get(element.kind, 0) if item.how == "elements" else 2
        action.element, action.cell = _kind(element), self._cell()
        self._close(action, element)
        plan = item.plan or Plan(Message(""))
        is_message = element.kind == "message"
        if is_message:
            action.table = self.table(plan, None, -1)
        children = [] if node is None else list(node.children.items())
        if item.how == "elements":
            children.sort()
        pairs: list[int] = []
        for place, (name, child) in enumerate(children):
            first = self.made.cells
            cell = self._cell()
            table = self._message(plan, child, cell) if is_message else -1
            if not is_message and isinstance(child, Field):
                self._final(child, element, cell, -1, has_presence=True)
            pairs += [int(name) if item.how == "elements" else place, cell, table]
            pairs += self._place(list(range(first, self.made.cells)))
        action.first_pair, action.pairs = self._place(pairs)[0], len(children)
        if item.how == "map":
            action.keys = len(self.made.keys)
            self.made.keys.append(tuple(str(name).encode() for name, _ in children))
        return action


def native_tables(plan: Plan, tree: Branch, entries: dict[int, int]) -> NativeTables:
    """entries: id of a field or branch of the contract's tree -> its number in the decoder."""
    builder = _Builder(entries)
    builder.table(plan, tree, -1, stays=True)
    made = builder.made
    numbers = (
        chain.from_iterable(made.tables),
        chain.from_iterable(action.row() for action in made.actions),
        chain.from_iterable(made.finals),
    )
    ends = array("i", accumulate(map(len, made.texts))).tobytes()
    tables, actions, finals = (array("i", one).tobytes() for one in numbers)
    places = array("i", made.places).tobytes()
    return tables, actions, finals, places, b"".join(made.texts), ends, tuple(made.keys), made.cells
