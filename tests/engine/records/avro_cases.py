"""Random Avro schemas, records of them, and contracts that read some of their fields."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

from saker.engine.contract import Contract, Feature
from saker.engine.paths import path_text
from saker.engine.records.formats import Format, Schema

WORDS = ("web", "app", "café", "a longer word than sixteen", "7", "12.5", "-0.5e3", "2026-11-30T12:00:00Z", "", 'x"\\\n')
LONGS = (0, 1, -1, 63, 64, 8191, -8192, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63), 1_796_075_999_500)
DOUBLES = (0.0, -0.0, 1.5, -2.25, 1e300, -1e39, 3.4e38, 5e-324, math.nan, math.inf, -math.inf, 0.1)
MOMENTS = ("timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-millis", "date")
#: What can be read of a leaf: kinds of features.
NUMERIC = ("int", "long", "float", "double", "boolean", "string", "decimal")
TEXTUAL = ("string", "enum", "int", "long", "boolean", "decimal")


class Case:
    """A schema, its contract, and records; all of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._names = 0
        self._leaves: list[tuple[tuple[str | int, ...], str]] = []
        identifier = self.random.choice(["string", "long", "int", {"type": "enum", "name": "Ids", "symbols": ["A", "B"]}])
        fields = [{"name": "id", "type": identifier}]
        names = [f"f{number}" for number in range(self.random.randint(1, 8))]
        fields += [{"name": name, "type": self._type(3, (name,))} for name in names]
        self.random.shuffle(fields)
        self.schema: dict[str, Any] = {"type": "record", "name": "Top", "fields": fields}
        self.contract = self._contract()
        self.format = Format("avro", schema=Schema("avro", json.dumps(self.schema)))

    def _name(self) -> str:
        self._names += 1
        return f"N{self._names}"

    def _type(self, depth: int, path: tuple[str | int, ...] | None) -> Any:  # noqa: PLR0911 - one case for each kind
        """A random type; its leaves are noted with their paths, unless nothing can be read there (None)."""
        kinds = ["primitive"] * 5 + ["enum", "decimal", "moment", "optional", "optional", "fixed"]
        kind = self.random.choice(kinds + ["record", "record", "array", "map", "union"] * (depth > 0))

        def leaf(name: str) -> None:
            if path is not None:
                self._leaves.append((path, name))

        match kind:
            case "primitive":
                name = self.random.choice(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
                leaf(name)
                return name
            case "enum":
                leaf("enum")
                return {"type": "enum", "name": self._name(), "symbols": ["WEB", "APP", "OTHER"][: self.random.randint(1, 3)]}
            case "decimal":
                leaf("decimal")
                size, precision = self.random.choice([(1, 2), (8, 18), (13, 30), (0, 30)])
                decimal = {"logicalType": "decimal", "precision": precision, "scale": self.random.choice([0, 2, precision])}
                return {**decimal, **({"type": "fixed", "name": self._name(), "size": size} if size else {"type": "bytes"})}
            case "moment":
                logical = self.random.choice(MOMENTS)
                leaf("long")
                return {"type": "int" if logical == "date" else "long", "logicalType": logical}
            case "fixed":
                return {"type": "fixed", "name": self._name(), "size": self.random.randint(0, 5)}
            case "optional":
                noted = len(self._leaves)
                inner = self._type(depth - 1, path)
                while isinstance(inner, list) or inner == "null":
                    del self._leaves[noted:]
                    inner = self._type(0, path)
                return self.random.choice([["null", inner], [inner, "null"]])
            case "union":
                branches = [self._type(0, None) for _ in range(2)]
                kept = {json.dumps(b) if isinstance(b, str) else f"{b['type']}": b for b in branches if not isinstance(b, list)}
                return [*kept.values()] or "int"
            case "array":
                index = self.random.randint(0, 2)
                return {"type": "array", "items": self._type(depth - 1, None if path is None else (*path, index))}
            case "map":
                return {"type": "map", "values": self._type(depth - 1, None if path is None else (*path, "k"))}
        inside = [
            {"name": name, "type": self._type(depth - 1, None if path is None else (*path, name))}
            for name in ("a", "b", "c")[: self.random.randint(0, 3)]
        ]
        return {"type": "record", "name": self._name(), "fields": inside}

    def _contract(self) -> Contract:
        features = []
        chosen = self.random.sample(self._leaves, min(len(self._leaves), self.random.randint(1, 8)))
        for number, (path, kind) in enumerate(chosen):
            required = self.random.random() < 0.1
            name, text = f"x{number}", path_text(path)
            if kind in TEXTUAL and (kind not in NUMERIC or self.random.random() < 0.4):
                vocabulary = tuple(self.random.sample((*WORDS, "WEB", "APP", "true", "1", "-1"), 6))
                features.append(Feature(name, "category", required, vocabulary, path=text))
            elif kind in NUMERIC and self.random.random() < 0.3:
                derivation = self.random.choice(["hour_of_day", "day_of_week", "seconds"])
                unit = self.random.choice([None, "s", "ms", "us", "ns"])
                features.append(Feature(name, "derived", required, derivation=derivation, unit=unit, path=text))
                features.append(Feature(f"{name}_too", path=text))
            elif kind in NUMERIC:
                features.append(Feature(name, "number", required, path=text))
        return Contract(tuple(features) or (Feature("none"),), id_field="id")

    def record(self) -> bytes:
        """One that fits the schema."""
        return self._encoded(self.schema)

    def damaged(self) -> bytes:
        return damage(self.random, self.record(), [b"\0", b"\xff" * 9, b"\x80" * 12, b"\x01", b"\xc3", b"\x02\xe9"])

    def _encoded(self, of: Any) -> bytes:  # noqa: PLR0911, PLR0912 - one case for each type
        pick = self.random.choice
        if isinstance(of, list):
            index = self.random.randrange(len(of))
            return long(index) + self._encoded(of[index])
        kind = of["type"] if isinstance(of, dict) else of
        match kind:
            case "null":
                return b""
            case "boolean":
                return pick([b"\0", b"\1", b"\1"])
            case "int" | "long":
                return long(pick([self.random.randint(-300, 300), pick(LONGS) if kind == "long" else 2**31 - 1]))
            case "float":
                return struct.pack("<f", pick([1.5, 0.1, -0.0, 3e38, math.nan, math.inf]))
            case "double":
                return struct.pack("<d", pick([self.random.uniform(-1000, 1000), pick(DOUBLES)]))
            case "bytes" if isinstance(of, dict) and of.get("logicalType") == "decimal":
                digits = pick([1, 4, 15, 17, 18, 29, 60, 150])
                unscaled = self.random.randint(-(10**digits) + 1, 10**digits - 1)
                return sized(unscaled.to_bytes(unscaled.bit_length() // 8 + pick([1, 1, 2, 3, 12]), "big", signed=True))
            case "bytes":
                return sized(self.random.randbytes(self.random.randint(0, 5)))
            case "string":
                return sized(pick(WORDS).encode())
            case "enum":
                return long(self.random.randrange(len(of["symbols"])))
            case "fixed":
                return self.random.randbytes(of["size"])
            case "array":
                return self._blocks([self._encoded(of["items"]) for _ in range(self.random.randint(0, 4))])
            case "map":
                keys = self.random.sample(["k", "l", "été"], self.random.randint(0, 3))
                return self._blocks([sized(key.encode()) + self._encoded(of["values"]) for key in keys])
        return b"".join(self._encoded(one["type"]) for one in of["fields"])

    def _blocks(self, items: list[bytes]) -> bytes:
        """In one block, or in several, some with their size."""
        out = b""
        while items:
            count = self.random.randint(1, len(items))
            block, items = b"".join(items[:count]), items[count:]
            out += long(count) + block if self.random.random() < 0.5 else long(-count) + long(len(block)) + block
        return out + b"\0"


def long(value: int) -> bytes:
    """Zigzag, 7 bits a byte."""
    rest, out = (value << 1 ^ value >> 63) & 0xFFFF_FFFF_FFFF_FFFF, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def sized(data: bytes) -> bytes:
    return long(len(data)) + data


def damage(rng: random.Random, value: bytes, pieces: list[bytes]) -> bytes:
    """The record with one to three places cut off, changed, removed, doubled, or filled with a piece."""
    damaged = bytearray(value)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(damaged) + 1)
        match rng.randrange(5):
            case 0:
                del damaged[at:]
            case 1:
                damaged[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                damaged[at:at] = rng.choice(pieces)
            case 3:
                del damaged[at : at + rng.randint(1, 4)]
            case _:
                damaged[at:at] = damaged[at : at + rng.randint(1, 10)]
    return bytes(damaged)
