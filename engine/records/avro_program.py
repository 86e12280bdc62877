"""An Avro schema and a contract: whether they fit, and the program that native/rows/avro.c runs on each record of the schema.

A program is a list of operations, five int32 each: code, a, b, c, and how many unrolled records are around it. It follows the
schema from its first byte to its last; what no path needs is skipped, with neighbours of one kind in one operation. Records,
unions and paths are unrolled. A type that is skipped and has a name is a subprogram, since it may contain itself.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate, chain

from saker.engine.contract import Feature
from saker.engine.field_tree import Branch, Field
from saker.engine.kernels.row_kernel import NativeProgram
from saker.engine.records.avro import MOMENTS, Type
from saker.engine.records.content import SchemaError

#: Most operations of a program.
MAX_OPERATIONS = 1 << 18


class Op(IntEnum):
    """enum avro_op of native/rows/avro.h"""

    END = 0
    SKIP_LONGS = 1  # a: how many
    SKIP_BYTES = 2  # a: how many
    SKIP_STRINGS = 3  # a: how many
    SKIP_ENUM = 4  # a: symbols
    OPTIONAL = 5  # a: which of two branches is null, b: where to continue then
    UNION = 6  # a: branches, b: the first of their places in `places`
    JUMP = 7  # a: where to
    BLOCKS = 8  # a: place of an item's program (-1: items have no bytes), b: whether keys are before items
    CALL = 9  # a: place of the program
    ELEMENTS = 10  # a: the first pair (index, place of its program) in `places`, b: how many, c: place for other items
    KEYS = 11  # a: table of keys, b: place of the program for the values of other keys
    LONG = 12  # a: field, b: Unit
    FLOAT = 13  # a: field
    DOUBLE = 14
    BOOLEAN = 15
    STRING = 16
    ENUM = 17  # a: field, b: the first of its symbols in `texts`, c: how many
    DECIMAL = 18  # a: field, b: bytes, -1: their number is before them, c: scale
    FAULT = 19  # a: enum fault, b: field or branch


#: Of a long, how its value is a time: not, in which unit, or in days.
UNITS = {"": 0, **{name: {1e3: 1, 1e6: 2, 1e9: 3}[per_second] for name, per_second in MOMENTS.items()}, "date": 4}
# enum fault of native/rows/rows.h
_NESTED, _NO_OBJECT, _NO_ARRAY, _OTHER_TYPE = 2, 9, 10, 11

_NUMBERS = {"boolean", "int", "long", "float", "double", "string", "decimal"}
_TEXTS = {"boolean", "int", "long", "string", "enum", "decimal"}
_KEY = ("a key (string, enum, boolean, number)", _NUMBERS | _TEXTS)


def _kind(of: Type) -> str:
    return "decimal" if of.logical == "decimal" else of.kind


def misfit(of: Type, node: Branch | Field) -> tuple[str, str] | None:
    """Why records of the schema can never fill what the contract reads there: the field, and what is wrong. None if they can.

    A union fits if one of its branches does; what the others hold is a matter of the single record.
    """
    branches = of.inner if of.kind == "union" else [of]
    found = [_misfit(branch, node) for branch in branches if not branch.is_empty] or [_absent(node)]
    return None if None in found else found[0]


def _absent(node: Branch | Field) -> tuple[str, str] | None:
    needed = [one for one in (node.fields() if isinstance(node, Branch) else [node]) if one.required or one.is_identifier]
    return (needed[0].label, "is required and not in the schema") if needed else None


def _misfit(of: Type, node: Branch | Field) -> tuple[str, str] | None:  # noqa: PLR0911 - one case for each kind
    kind = _kind(of)
    if isinstance(node, Field):
        takes = [("an identifier", _TEXTS - {"boolean"})] if node.is_identifier else []
        takes += [_takes(feature) for _, feature in node.columns]
        takes += [_KEY if one.kind == "identity" else ("a number", _NUMBERS) for one in node.inputs]
        return next(
            ((node.label, f"is {kind} in the schema, expected {what}") for what, kinds in takes if kind not in kinds), None
        )
    if node.is_array:
        if kind != "array":
            return node.label, f"is {kind} in the schema, expected an array"
        return next((why for child in node.children.values() if (why := misfit(of.inner[0], child))), None)
    if kind == "map":
        return next((why for child in node.children.values() if (why := misfit(of.inner[0], child))), None)
    if kind != "record":
        return node.label or "the record", f"is {kind} in the schema, expected a record"
    fields = dict(of.fields)
    for name, child in node.children.items():
        inner = fields.get(str(name))
        if why := _absent(child) if inner is None else misfit(inner, child):
            return why
    return None


def _takes(feature: Feature) -> tuple[str, set[str]]:
    if feature.kind == "category":
        return "a category (string, enum, boolean, int, long, decimal)", _TEXTS
    return "a time" if feature.derivation else "a number", _NUMBERS


@dataclass(slots=True)
class Program:
    """What `_native.Decoder.add_schema` takes."""

    operations: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    #: Where operations are: of subprograms, and of the branches of unions.
    places: list[int] = field(default_factory=list)
    #: Symbols of enums.
    texts: list[bytes] = field(default_factory=list)
    #: Of maps: keys, and for each the place of the program that reads its value, and its field or branch.
    keys: list[tuple[tuple[bytes, ...], tuple[int, ...]]] = field(default_factory=list)


#: What a subprogram does: skip the fields of a record, skip a value, or read a value for a part of the contract.
_Task = tuple[str, Type, "Branch | Field | None"]


class _Compiler:
    def __init__(self, entries: dict[int, int]) -> None:
        """entries: id of a field or branch of the contract's tree -> its number in the decoder."""
        self._entries, self.program = entries, Program()
        self._known: dict[tuple[str, int, int], int] = {}
        self._waiting: list[tuple[int, _Task]] = []
        self._levels = 0  # records around the operation that are unrolled in its subprogram
        self._is_target = True  # whether the next operation is jumped to

    def compile(self, of: Type, tree: Branch) -> Program:
        self._value(of, tree)
        self._emit(Op.END)
        while self._waiting:
            place, (task, inner, node) = self._waiting.pop()
            self.program.places[place], self._is_target = len(self.program.operations), True
            if task == "fields":
                for _, one in inner.fields:
                    self._skip(one)
            elif node is None:
                self._skip(inner)
            else:
                self._value(inner, node)
            self._emit(Op.END)
        return self.program

    def _emit(self, op: Op, a: int = 0, b: int = 0, c: int = 0) -> int:
        operations, is_target = self.program.operations, self._is_target
        self._is_target = False
        is_skip = op in (Op.SKIP_LONGS, Op.SKIP_BYTES, Op.SKIP_STRINGS)
        if is_skip and not is_target and operations[-1][0] == op and operations[-1][1] + a < 2**31:
            operations[-1] = (op, operations[-1][1] + a, 0, 0, 0)
            return len(operations) - 1
        if len(operations) >= MAX_OPERATIONS:
            raise SchemaError(f"it needs more than {MAX_OPERATIONS:,} operations")
        operations.append((op, a, b, c, self._levels))
        return len(operations) - 1

    def _patch(self, at: int, **changes: int) -> None:
        op, a, b, c, levels = self.program.operations[at]
        self.program.operations[at] = (op, changes.get("a", a), changes.get("b", b), c, levels)

    def _here(self) -> int:
        self._is_target = True
        return len(self.program.operations)

    def _subprogram(self, task: str, of: Type, node: Branch | Field | None = None) -> int:
        """The place of the subprogram, which is written later."""
        key = (task, id(of), id(node))
        if key not in self._known:
            self._known[key] = len(self.program.places)
            self.program.places.append(-1)
            self._waiting.append((self._known[key], (task, of, node)))
        return self._known[key]

    def _union(self, of: Type, node: Branch | Field | None) -> None:
        nulls = [index for index, branch in enumerate(of.inner) if branch.is_empty]
        others = [branch for branch in of.inner if not branch.is_empty]
        if len(nulls) == len(others) == 1:
            start = self._emit(Op.OPTIONAL, nulls[0])
            self._is_target = True  # nothing before it may be merged with what is inside
            self._any(others[0], node)
            self._patch(start, b=self._here())
            return
        first = len(self.program.places)
        self.program.places += [-1] * len(of.inner)
        self._emit(Op.UNION, len(of.inner), first)
        jumps = []
        for index, branch in enumerate(of.inner):
            self.program.places[first + index] = self._here()
            self._any(branch, node)
            jumps.append(self._emit(Op.JUMP))
        for jump in jumps:
            self._patch(jump, a=self._here())

    def _any(self, of: Type, node: Branch | Field | None) -> None:
        if node is None:
            self._skip(of)
        else:
            self._value(of, node)

    def _skip(self, of: Type) -> None:
        if of.is_empty:
            return
        match of.kind:
            case "int" | "long":
                self._emit(Op.SKIP_LONGS, 1)
            case "boolean" | "float" | "double" | "fixed":
                self._emit(Op.SKIP_BYTES, {"boolean": 1, "float": 4, "double": 8}.get(of.kind, of.size))
            case "string" | "bytes":
                self._emit(Op.SKIP_STRINGS, 1)
            case "enum":
                self._emit(Op.SKIP_ENUM, len(of.symbols))
            case "union":
                self._union(of, None)
            case "record":
                self._emit(Op.CALL, self._subprogram("fields", of))
            case _:
                nothing = of.kind == "array" and of.inner[0].is_empty
                item = -1 if nothing else self._subprogram("value", of.inner[0])
                self._emit(Op.BLOCKS, item, int(of.kind == "map"))

    def _value(self, of: Type, node: Branch | Field) -> None:
        if of.is_empty:
            return
        if of.kind == "union":
            self._union(of, node)
        elif isinstance(node, Field):
            self._field(of, node)
        elif node.is_array and of.kind == "array":
            self._elements(of.inner[0], node)
        elif not node.is_array and of.kind == "map":
            self._keys(of.inner[0], node)
        elif not node.is_array and of.kind == "record":
            self._levels += 1
            for name, inner in of.fields:
                self._any(inner, node.children.get(name))
            self._levels -= 1
        else:
            self._emit(Op.FAULT, _NO_ARRAY if node.is_array else _NO_OBJECT, self._entries[id(node)])
            self._skip(of)

    def _elements(self, inner: Type, node: Branch) -> None:
        if inner.is_empty:
            self._emit(Op.BLOCKS, -1, 0)
            return
        others = self._subprogram("value", inner)
        programs = [(int(index), self._subprogram("value", inner, child)) for index, child in sorted(node.children.items())]
        first = len(self.program.places)
        self.program.places += [number for pair in programs for number in pair]
        self._emit(Op.ELEMENTS, first, len(programs), others)

    def _keys(self, inner: Type, node: Branch) -> None:
        keys = tuple(str(name).encode() for name in node.children)
        pairs = ((self._subprogram("value", inner, child), self._entries[id(child)]) for child in node.children.values())
        self.program.keys.append((keys, tuple(chain.from_iterable(pairs))))
        self._emit(Op.KEYS, len(self.program.keys) - 1, self._subprogram("value", inner))

    def _field(self, of: Type, node: Field) -> None:
        entry = self._entries[id(node)]
        match _kind(of):
            case "int" | "long":
                self._emit(Op.LONG, entry, UNITS[of.logical])
            case "float":
                self._emit(Op.FLOAT, entry)
            case "double":
                self._emit(Op.DOUBLE, entry)
            case "boolean":
                self._emit(Op.BOOLEAN, entry)
            case "string":
                self._emit(Op.STRING, entry)
            case "enum":
                self._emit(Op.ENUM, entry, len(self.program.texts), len(of.symbols))
                self.program.texts += [symbol.encode("utf-8", "surrogatepass") for symbol in of.symbols]
            case "decimal":
                self._emit(Op.DECIMAL, entry, of.size if of.kind == "fixed" else -1, of.scale)
            case kind:
                self._emit(Op.FAULT, _NESTED if kind in ("record", "array", "map") else _OTHER_TYPE, entry)
                self._skip(of)


def compile_program(of: Type, tree: Branch, entries: dict[int, int]) -> Program:
    """Raises `SchemaError` for a schema that needs too many operations."""
    return _Compiler(entries).compile(of, tree)


def native_form(program: Program) -> NativeProgram:
    ends = list(accumulate(map(len, program.texts)))
    numbers = [array("i", one).tobytes() for one in (chain.from_iterable(program.operations), program.places)]
    return numbers[0], numbers[1], b"".join(program.texts), array("i", ends).tobytes(), tuple(program.keys)
