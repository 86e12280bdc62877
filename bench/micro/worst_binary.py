"""Hostile records of Avro and Protobuf, and what each byte of them costs: `saker bench worst --format avro|protobuf`."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import fastavro

from saker.bench.micro.worst import SIZES, Found, cost_of
from saker.engine.contract import Contract, Feature
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Format, Schema, varint

_NUMBERS = 30
_CONTRACT = Contract(
    (
        *(Feature(f"n{at}") for at in range(_NUMBERS)),
        Feature("city", "category", vocabulary=("a", "b")),
        Feature("price"),
        Feature("text"),
        Feature("hour", "derived", path="at", derivation="hour_of_day"),
        Feature("fourth", path="items[3]"),
        Feature("k", path="map.k"),
    ),
    id_field="id",
)
Made = dict[str, Callable[[int], bytes]]


def search(kind: str) -> Iterator[Found]:
    """ns of CPU a byte of each kind of record, ordinary ones first; damaged ones lack their last byte."""
    of, made = {"avro": _avro, "protobuf": _protobuf}[kind]()
    for name, make in made.items():
        sizes = SIZES if name != "ordinary records" else SIZES[:1]
        for suffix, end in (("", None), (", damaged", -1)):
            if name == "ordinary records" and suffix:
                continue
            cost, size = max((_cost(of, made, [make(size)[:end]] * 64), size) for size in sizes)
            yield Found(name + suffix, cost, 0, size)


def _cost(of: Format, made: Made, values: list[bytes]) -> float:
    return cost_of(lambda: Decoder(_CONTRACT, of=of), [made["ordinary records"](0)] * 256, values)


# ---- Avro ----


def _avro() -> tuple[Format, Made]:
    inner = {
        "type": "record",
        "name": "Inner",
        "fields": [{"name": "a", "type": ["null", "int"]}, {"name": "b", "type": "string"}],
    }
    chain = {"type": "record", "name": "Link", "fields": [{"name": "next", "type": ["null", "Link"]}]}
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 150, "scale": 2}
    fields = {
        "id": "string", "city": "string", "text": "string", "price": decimal, "at": "double",
        "items": {"type": "array", "items": "double"}, "map": {"type": "map", "values": "long"},
        "strings": {"type": "array", "items": "string"}, "chain": ["null", chain], "records": {"type": "array", "items": inner},
        "unions": {"type": "map", "values": ["null", "long", {"type": "array", "items": "int"}]},
        **{f"n{at}": ["null", "double"] for at in range(_NUMBERS)},
    }  # fmt: skip
    schema = {"type": "record", "name": "R", "fields": [{"name": name, "type": of} for name, of in fields.items()]}
    own = fastavro.parse_schema(schema)
    usual: dict[str, Any] = {
        "id": "abc", "city": "a", "text": "1", "price": Decimal("1.5"), "at": 1e9, "items": [1.0] * 5, "map": {"k": 1},
        "strings": [], "chain": None, "records": [], "unions": {},
        **{f"n{at}": at * 1.5 if at % 3 else None for at in range(_NUMBERS)},
    }  # fmt: skip

    def made(change: Callable[[int], dict[str, Any]]) -> Callable[[int], bytes]:
        def make(size: int) -> bytes:
            out = io.BytesIO()
            fastavro.schemaless_writer(out, own, {**usual, **change(size)})
            return out.getvalue()

        return make

    def linked(depth: int) -> Any:
        value: Any = None
        for _ in range(depth):
            value = {"next": value}
        return value

    changes: dict[str, Callable[[int], dict[str, Any]]] = {
        "ordinary records": lambda _: {},
        "empty strings": lambda n: {"strings": [""] * n},
        "small records": lambda n: {"records": [{"a": None, "b": ""}] * (n // 2)},
        "keys of a map": lambda n: {"map": {str(at): at for at in range(n // 6)}},
        "unions": lambda n: {"unions": {str(at): [1] for at in range(n // 9)}},
        "deep": lambda _: {"chain": linked(60)},
        "long identifier": lambda n: {"id": "\x01" * n},
        "long category": lambda n: {"city": "é" * (n // 2)},
        "long number": lambda n: {"text": "0." + "0" * n + "1"},
        "long text for a number": lambda n: {"text": "x" * n},
        "elements": lambda n: {"items": [1e300] * (n // 8)},
        "long decimal": lambda _: {"price": Decimal(10) ** 120},
        "no such time": lambda _: {"at": 1e30},
        "beyond float32": lambda _: {f"n{at}": 1e300 for at in range(_NUMBERS)},
    }
    return Format("avro", schema=Schema("avro", json.dumps(schema))), {name: made(change) for name, change in changes.items()}


# ---- Protobuf ----


def _tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def _sized(number: int, data: bytes) -> bytes:
    return _tag(number, 2) + varint(len(data)) + data


def _protobuf() -> tuple[Format, Made]:
    text = (
        'syntax = "proto3"; message R { string id = 1; string city = 2; double at = 3; repeated double items = 4; '
        "map<string, int64> map = 5; string text = 6; double price = 7; oneof one { int32 a = 8; string b = 9; R c = 10; } "
        + " ".join(f"optional double n{at} = {20 + at};" for at in range(_NUMBERS))
        + " }"
    )

    def usual(*, identifier: bytes = b"abc", city: bytes = b"a", text: bytes = b"1", at: float = 1e9, n: float = 1.5) -> bytes:
        out = _sized(1, identifier) + _sized(2, city) + _tag(3, 1) + struct.pack("<d", at) + _sized(6, text)
        return out + b"".join(_tag(20 + at, 1) + struct.pack("<d", n) for at in range(_NUMBERS) if at % 3)

    def repeated(one: bytes) -> Callable[[int], bytes]:
        return lambda size: usual() + one * (size // len(one))

    def deep(_: int) -> bytes:
        inner = b""
        for _ in range(90):
            inner = _sized(10, inner)
        return usual() + inner

    made: Made = {
        "ordinary records": lambda _: usual(),
        "unknown numbers": repeated(_tag(1000, 0) + b"\1"),
        "unknown strings": repeated(_sized(1000, b"")),
        "groups": repeated(_tag(100, 3) + _tag(100, 4)),
        "members of a oneof": repeated(_tag(8, 0) + b"\1" + _sized(9, b"") + _sized(10, b"")),
        "elements": repeated(_tag(4, 1) + bytes(8)),
        "packed elements": lambda n: usual() + _sized(4, bytes(8 * (n // 8))),
        "empty entries of a map": repeated(_sized(5, b"")),
        "entries of a map": repeated(_sized(5, _sized(1, b"k") + _tag(2, 0) + b"\1")),
        "a category again": repeated(_sized(2, b"a")),
        "an identifier again": repeated(_sized(1, b"a")),
        "deep": deep,
        "long identifier": lambda n: usual(identifier=b"\1" * n),
        "long category": lambda n: usual(city="é".encode() * (n // 2)),
        "long number": lambda n: usual(text=b"0." + b"0" * n + b"1"),
        "not UTF-8": lambda n: usual(city=b"\xff" * n),
        "no such time": lambda _: usual(at=1e30),
        "beyond float32": lambda _: usual(n=1e300),
    }
    return Format("protobuf", schema=Schema("protobuf", text)), made
