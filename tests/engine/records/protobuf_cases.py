"""Random Protocol Buffers schemas, messages of them in every order and spelling of the wire format, and contracts."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Any

from saker.engine.contract import Contract, Feature
from saker.engine.paths import path_text
from saker.engine.records.formats import Format, Schema
from tests.engine.records.avro_cases import DOUBLES, LONGS, WORDS, damage

VARINTS = ("int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool")
FIXED = {"fixed32": 5, "sfixed32": 5, "float": 5, "fixed64": 1, "sfixed64": 1, "double": 1}
SCALARS = (*VARINTS, *FIXED, "string")
KEYS = ("string", "int32", "sint64", "uint32", "bool", "fixed32")
SPECIAL = (
    "google.protobuf.Timestamp",
    "google.protobuf.DoubleValue",
    "google.protobuf.StringValue",
    "google.protobuf.Int64Value",
)


@dataclass
class One:
    """kind: a scalar, enum, message or map; of: the enum's numbers, the message's fields, or (key kind, value)."""

    name: str
    number: int
    kind: str
    label: str = ""
    of: Any = None
    type: str = ""


@dataclass
class Group:
    fields: list[One] = field(default_factory=list)


class ProtoCase:
    """A source, its contract, and messages; all of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.syntax = self.random.choice(["proto2", "proto3", "proto3"])
        self._count = 0
        self._leaves: list[tuple[tuple[str | int, ...], str]] = []
        self._definitions: list[str] = []
        self._top = self._message("Top", 3, ())
        self.text = "\n".join(
            [f'syntax = "{self.syntax}";', "package bank;", 'import "google/protobuf/timestamp.proto";', *self._definitions]
        )
        self.contract = self._contract()
        self.format = Format("protobuf", schema=Schema("protobuf", self.text, message="bank.Top"))

    def _message(self, name: str, depth: int, path: tuple[str | int, ...] | None) -> Group:
        """A definition, written before those that use it; its leaves are noted with their paths (None: it is not read)."""
        group, lines, number = Group(), list[str](), 0
        oneof: list[str] = []
        names = ["id", *(f"f{at}" for at in range(self.random.randint(1, 6)))] if path == () else ["a", "b", "c"]
        for one_name in names[: None if path == () else self.random.randint(1, 3)]:
            number += self.random.choice([1, 1, 1, 5, 14, 3000])
            is_id = one_name == "id" and path == ()
            one = self._field(one_name, number, depth, path, is_id=is_id)
            group.fields.append(one)
            in_oneof = not is_id and one.label == "" and one.kind != "map" and self.random.random() < 0.4
            label = one.label if in_oneof or one.label else self._label(one)
            line = f"  {label} {one.type} {one.name} = {one.number};".replace("  ", " ")
            (oneof if in_oneof else lines).append(line)
        body = "\n".join(lines) + ("\noneof one {\n" + "\n".join(oneof) + "\n}" if oneof else "")
        self._definitions.append(f"message {name} {{\n{body}\n}}")
        return group

    def _label(self, one: One) -> str:
        if one.kind == "map":
            return ""
        return "optional" if self.syntax == "proto2" or self.random.random() < 0.2 else ""

    def _field(self, name: str, number: int, depth: int, path: tuple[str | int, ...] | None, *, is_id: bool) -> One:  # noqa: PLR0911 - one case for each kind
        def leaf(kind: str, *more: str | int) -> None:
            if path is not None and not is_id:
                self._leaves.append(((*path, name, *more), kind))

        if is_id:
            kind = self.random.choice(["string", "int64", "uint64", "sint32", "fixed32"])
            return One(name, number, kind, type=kind)
        what = self.random.choice(["scalar"] * 5 + ["enum", "special", "repeated", "map"] + ["message"] * 3 * (depth > 0))
        if what == "enum":
            leaf("enum")
            numbers, type_name = self._enum()
            return One(name, number, "enum", of=numbers, type=type_name)
        if what == "special":
            type_name = self.random.choice(SPECIAL)
            leaf({"google.protobuf.Timestamp": "time", "google.protobuf.StringValue": "string"}.get(type_name, "double"))
            return One(name, number, "special", of=type_name, type=type_name)
        if what == "message":
            inner = self._name()
            group = self._message(inner, depth - 1, None if path is None else (*path, name))
            return One(name, number, "message", of=group, type=inner)
        if what == "repeated":
            if depth > 0 and self.random.random() < 0.4:
                inner, index = self._name(), self.random.randint(0, 2)
                group = self._message(inner, 0, None if path is None else (*path, name, index))
                return One(name, number, "message", "repeated", of=group, type=inner)
            kind = self.random.choice([*SCALARS, "enum"])
            leaf(kind, self.random.randint(0, 3))
            numbers, type_name = self._enum() if kind == "enum" else (None, kind)
            return One(name, number, kind, "repeated", of=numbers, type=type_name)
        if what == "map":
            key = self.random.choice(KEYS)
            kind = self.random.choice([*SCALARS, "enum"])
            leaf(kind, {"string": "k", "bool": "true"}.get(key, "7"))
            numbers, type_name = self._enum() if kind == "enum" else (None, kind)
            value = One("value", 2, kind, of=numbers, type=type_name)
            return One(name, number, "map", of=(key, value), type=f"map<{key}, {type_name}>")
        kind = self.random.choice(SCALARS)
        leaf(kind)
        return One(name, number, kind, type=kind)

    def _name(self) -> str:
        self._count += 1
        return f"N{self._count}"

    def _enum(self) -> tuple[Any, str]:
        name = self._name()
        numbers = [0, *self.random.sample([1, 2, 7, 200, -1], 3)]
        values = " ".join(f"{name}_{at} = {number};" for at, number in enumerate(numbers))
        self._definitions.append(f"enum {name} {{ {values} }}")
        return numbers, name

    def _contract(self) -> Contract:
        features = []
        for number, (path, kind) in enumerate(self.random.sample(self._leaves, min(len(self._leaves), 8))):
            required, name, text = self.random.random() < 0.1, f"x{number}", path_text(path)
            is_text = kind in ("string", "enum", "bool") or kind[-2:] in ("32", "64")
            if kind == "enum" or (is_text and self.random.random() < 0.4):
                names = [f"N{at}_{value}" for at in range(1, self._count + 1) for value in range(4)]
                known = tuple(self.random.sample((*WORDS, "1", "-1", "true", "0"), 5)) + tuple(names)
                features.append(Feature(name, "category", required, known, path=text))
            elif kind == "time" or self.random.random() < 0.3:
                derivation = self.random.choice(["hour_of_day", "seconds"])
                features.append(Feature(name, "derived", required, derivation=derivation, path=text))
                features.append(Feature(f"{name}_too", path=text))
            else:
                features.append(Feature(name, "number", required, path=text))
        return Contract(tuple(features) or (Feature("none"),), id_field="id")

    def record(self) -> bytes:
        return self._encoded(self._top, always=("id",))

    def damaged(self) -> bytes:
        pieces = [b"\0", b"\xff" * 9, b"\x80" * 12, b"\x01", b"\xc3", b"\x0b", b"\x0c", b"\x0a\x7f"]
        return damage(self.random, self.record(), pieces)

    def _encoded(self, group: Group, always: tuple[str, ...] = ()) -> bytes:
        parts = []
        for one in group.fields:
            times = self.random.choice([0, 1, 1, 1, 1, 2]) or int(one.name in always)
            parts += [self._one(one) for _ in range(times)]
        if self.random.random() < 0.2:
            number = self.random.choice([19, 2999, 500_000])
            parts.append(
                self.random.choice(
                    [
                        tag(number, 0) + varint(5), tag(number, 1) + b"12345678", tag(number, 2) + sized(b"any \xff"),
                        tag(number, 5) + b"1234", tag(number, 3) + tag(1, 0) + b"\1" + tag(number, 4),
                    ]
                )
            )  # fmt: skip
        if self.random.random() < 0.3:
            self.random.shuffle(parts)
        return b"".join(parts)

    def _one(self, one: One) -> bytes:
        if one.kind == "map":
            key_kind, value = one.of
            key = {"string": sized(self.random.choice([b"k", b"other"])), "bool": varint(self.random.randint(0, 1))}.get(
                key_kind, self._scalar(key_kind, [7, 7, -7, 2])
            )
            entry = [tag(1, wire(key_kind)) + key, tag(2, wire(value.kind)) + self._value(value)]
            if self.random.random() < 0.1:
                entry = self.random.sample(entry * 2, self.random.randint(0, 3))
            return tag(one.number, 2) + sized(b"".join(entry))
        if one.label == "repeated" and one.kind not in ("string", "message"):
            values = [self._value(one) for _ in range(self.random.randint(0, 4))]
            if self.random.random() < 0.5:
                return tag(one.number, 2) + sized(b"".join(values))
            return b"".join(tag(one.number, wire(one.kind)) + value for value in values)
        return tag(one.number, wire(one.kind)) + self._value(one)

    def _value(self, one: One) -> bytes:
        pick = self.random.choice
        match one.kind:
            case "message":
                return sized(self._encoded(one.of))
            case "enum":
                return varint(pick([*one.of, 3, -5]) & 0xFFFF_FFFF_FFFF_FFFF)
            case "special" if one.of.endswith("Timestamp"):
                parts = [
                    tag(1, 0) + varint(pick([0, 1_796_075_999, 2**63, 2**64 - 5])),
                    tag(2, 0) + varint(pick([5, 999_999_999])),
                ]
                return sized(b"".join(self.random.sample(parts, self.random.randint(0, 2))))
            case "special":
                inner = {"DoubleValue": "double", "StringValue": "string", "Int64Value": "int64"}[one.of.rpartition(".")[2]]
                return sized(b"" if self.random.random() < 0.2 else tag(1, wire(inner)) + self._scalar(inner))
        return self._scalar(one.kind)

    def _scalar(self, kind: str, numbers: Any = LONGS) -> bytes:  # noqa: PLR0911 - one case for each kind
        pick = self.random.choice
        number = pick([self.random.randint(-300, 300), pick(numbers)]) if numbers is LONGS else pick(numbers)
        match kind:
            case "string":
                return sized(pick([word.encode() for word in WORDS] + [b"\xff\xfe"] * (self.random.random() < 0.1)))
            case "double":
                return struct.pack("<d", pick([self.random.uniform(-1000, 1000), pick(DOUBLES)]))
            case "float":
                return struct.pack("<f", pick([1.5, 0.1, -0.0, float("nan"), float("inf")]))
            case "fixed64" | "sfixed64":
                return struct.pack("<Q", number & 0xFFFF_FFFF_FFFF_FFFF)
            case "fixed32" | "sfixed32":
                return struct.pack("<I", number & 0xFFFF_FFFF)
            case "bool":
                return varint(pick([0, 1, 2, 2**40]))
            case "sint32" | "sint64":
                return varint((number << 1 ^ number >> 63) & 0xFFFF_FFFF_FFFF_FFFF)
        return varint(number & 0xFFFF_FFFF_FFFF_FFFF)


def wire(kind: str) -> int:
    return 2 if kind in ("string", "message", "special") else FIXED.get(kind, 0)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data
