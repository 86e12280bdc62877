"""The same records flat, nested, in Avro and in Protobuf: `saker bench rows --format nested|avro|protobuf`.

Each decoder must give the matrix that flat JSON gives. The peers are what an engineer would use: orjson, fastavro, and upb by
the protobuf package, with one np.array per batch and no value checked.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import fastavro
import numpy as np
import orjson
from google.protobuf import descriptor_pool, message_factory
from numpy.typing import NDArray

from saker.bench.data.stream_records import contract, records
from saker.bench.micro.rows import BATCH, BATCHES, decoders
from saker.bench.micro.runner import Case
from saker.engine.contract import Contract, Feature
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import JSON, Format, Schema
from saker.engine.records.proto_text import parse_proto

_WIDTH, _GROUP = 50, 10
Matrix = NDArray[np.float32]
Peers = dict[str, Callable[[list[bytes]], Matrix]]


def cases(kind: str) -> Iterator[Case]:
    """kind: nested, avro or protobuf."""
    flat = contract(_WIDTH)
    lines = records(flat, BATCH * BATCHES, null_share=0.35)
    parsed = [orjson.loads(line) for line in lines]
    expected = Decoder(flat).decode(lines[:BATCH]).matrix
    of, form, values, peers = {"nested": _nested, "avro": _avro, "protobuf": _protobuf}[kind](flat, parsed)
    group = f"rows, {_WIDTH} fields, {sum(map(len, values)) / len(values):.0f} bytes, {kind}"
    calls: dict[str, Callable[[list[bytes]], Any]] = {who: decoder.decode for who, decoder in decoders(of, form).items()}
    for who, call in calls.items():
        np.testing.assert_array_equal(call(values[:BATCH]).matrix, expected, who)
    for who, peer in peers.items():
        np.testing.assert_array_equal(peer(values[:BATCH]), expected, who)
    batches = [values[i : i + BATCH] for i in range(0, len(values), BATCH)]
    for who, call in (calls | peers).items():
        yield Case(group, who, _all(call, batches), len(values))
    if kind == "nested":
        flat_batches = [lines[i : i + BATCH] for i in range(0, len(lines), BATCH)]
        yield Case(
            group, f"flat, {sum(map(len, lines)) / len(lines):.0f} bytes", _all(Decoder(flat).decode, flat_batches), len(lines)
        )


def _all(call: Callable[[list[bytes]], object], batches: list[list[bytes]]) -> Callable[[], object]:
    return lambda: [call(batch) for batch in batches]


def _rows(of: Contract, read: Callable[[bytes], list[Any]]) -> Callable[[list[bytes]], Matrix]:
    """The values of each record in the order of the features, as a matrix."""
    coded = [
        (column, {None: np.nan, "": np.nan, **{text: code for code, text in enumerate(feature.vocabulary)}})
        for column, feature in enumerate(of.features)
        if feature.kind == "category"
    ]

    def decode(values: list[bytes]) -> Matrix:
        rows = [read(value) for value in values]
        for column, codes in coded:
            for row in rows:
                row[column] = codes.get(row[column], np.nan)
        return np.array(rows, np.float32)

    return decode


def _group(number: int) -> str:
    return f"part{number // _GROUP}"


def _nested(flat: Contract, parsed: list[dict[str, Any]]) -> tuple[Contract, Format, list[bytes], Peers]:
    """Ten fields in each object."""
    places = [(_group(at), feature.name) for at, feature in enumerate(flat.features)]
    features = [replace(f, path=f"{group}.{name}") for f, (group, name) in zip(flat.features, places, strict=True)]
    values = []
    for record in parsed:
        tree: dict[str, Any] = {flat.id_field: record[flat.id_field]}
        for group, name in places:
            tree.setdefault(group, {})[name] = record[name]
        values.append(json.dumps(tree, separators=(",", ":")).encode())

    def read(value: bytes) -> list[Any]:
        tree = orjson.loads(value)
        return [tree[group][name] for group, name in places]

    return replace(flat, features=tuple(features)), JSON, values, {"orjson each": _rows(flat, read)}


def _kind(feature: Feature) -> str:
    return "string" if feature.kind == "category" else "double"


def _avro(flat: Contract, parsed: list[dict[str, Any]]) -> tuple[Contract, Format, list[bytes], Peers]:
    """Nullable double and string."""
    fields: list[dict[str, Any]] = [{"name": flat.id_field, "type": "long"}]
    fields += [{"name": feature.name, "type": ["null", _kind(feature)]} for feature in flat.features]
    schema = {"type": "record", "name": "Transaction", "fields": fields}
    own = fastavro.parse_schema(schema)
    values = []
    for record in parsed:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, own, record)
        values.append(out.getvalue())
    names = [feature.name for feature in flat.features]

    def read(value: bytes) -> list[Any]:
        record: Any = fastavro.schemaless_reader(io.BytesIO(value), own, None)
        return [record[name] for name in names]

    form = Format("avro", schema=Schema("avro", json.dumps(schema)))
    return flat, form, values, {"fastavro": _rows(flat, read)}


def _protobuf(flat: Contract, parsed: list[dict[str, Any]]) -> tuple[Contract, Format, list[bytes], Peers]:
    """proto3 with optional double and string."""
    fields = [f"int64 {flat.id_field} = 1;"]
    fields += [f"optional {_kind(feature)} {feature.name} = {at};" for at, feature in enumerate(flat.features, 2)]
    text = 'syntax = "proto3"; message Transaction { ' + " ".join(fields) + " }"
    file = parse_proto(text)
    file.name = "transaction.proto"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("Transaction"))
    values = [
        message(**{name: value for name, value in record.items() if value is not None}).SerializeToString() for record in parsed
    ]
    names = [feature.name for feature in flat.features]

    def read(value: bytes) -> list[Any]:
        record = message.FromString(value)
        return [getattr(record, name) if record.HasField(name) else None for name in names]

    form = Format("protobuf", schema=Schema("protobuf", text))
    return flat, form, values, {"upb": _rows(flat, read)}
