"""Scores to results in JSON, Avro or Protobuf: natively where the kernels are, by Python otherwise; the same bytes.

Encoder --pieces--> native put_result (native/rows/results.h), or `_encode`
read_result: what such a result says, whatever its form
"""

from __future__ import annotations

import contextlib
import json  # which can keep a number as it is written; orjson cannot
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from saker.engine.config import JSON_RESULTS, ResultSettings
from saker.engine.kernels import Values, mode_of, native
from saker.engine.records.content import Number
from saker.engine.records.decode import Identifiers
from saker.engine.records.formats import ID_BYTES, KINDS, Kind, Schema, prefix, varint

AVRO_SCHEMA = """\
{
  "type": "record",
  "name": "Score",
  "namespace": "saker",
  "fields": [
    {"name": "id", "type": "string"},
    {"name": "fraud_score", "type": "double"},
    {"name": "is_fraud", "type": "boolean"},
    {"name": "model", "type": "string"},
    {"name": "scored_at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "late", "type": "boolean", "default": false}
  ]
}
"""
PROTOBUF_SCHEMA = """\
syntax = "proto3";
package saker;

message Score {
  string id = 1;
  double fraud_score = 2;
  bool is_fraud = 3;
  string model = 4;
  int64 scored_at_ms = 5;
  bool late = 6;
}
"""
#: What `encode` puts around the identifier, the score and the time: before the identifier, before its score, after it if it is
#: no fraud and if it is, after the time if it is not late and if it is; and the number of the form (native/rows/results.h).
Pieces = tuple[bytes, bytes, bytes, bytes, bytes, bytes, int]
Encode = Callable[..., Sequence[bytes]]
_JSON, _AVRO = KINDS.index("json"), KINDS.index("avro")


class Result(NamedTuple):
    """What a result says. `fields` is the whole object of one in JSON; the others have `id`, the identifier's text."""

    model: str
    fraud_score: float
    is_fraud: bool
    fields: Mapping[str, Any]
    id: str | None = None


def result_schema(kind: Literal["avro", "protobuf"]) -> Schema:
    """What saker registers for its results."""
    return Schema(kind, AVRO_SCHEMA if kind == "avro" else PROTOBUF_SCHEMA)


class Encoder:
    """Writes results such as

    {"TransactionID":2987000,"fraud_score":0.0123,"is_fraud":false,"model":"fraud/7","scored_at_ms":1795525200000}

    and `,"late":true` at the end of a late one; or the same as `AVRO_SCHEMA` or `PROTOBUF_SCHEMA` with Confluent's prefix.
    """

    def __init__(
        self, id_field: str, threshold: float, model: str, kernels: str | None = None, of: ResultSettings = JSON_RESULTS
    ) -> None:
        """threshold: is_fraud is score >= threshold. model: its name and version. kernels: as for `Decoder`."""
        extension, _ = native(mode_of(kernels))
        self._encode: Encode = extension.encode if extension else _encode
        self._threshold = threshold
        self.pieces = _pieces(id_field, model, of)
        self._is_json = of.format == "json"

    def encode(
        self, ids: Identifiers, scores: NDArray[np.float64], scored_at_ms: int, late: NDArray[np.bool_] | None = None
    ) -> Sequence[bytes]:
        """One result per record; each of `scores` (n,), which are finite, reads back as the same float64.

        late (n,): which of them came too late; without it none.
        """
        if scores.shape != (len(ids),):
            raise ValueError(f"expected one score for each of {len(ids)} identifiers, got shape {scores.shape}")
        flags: NDArray[Any] = scores >= self._threshold
        if late is not None:
            flags = flags + 2 * late.view(np.uint8)
        # As JSON the whole batch at once: exactly, and faster than any code that would be worth owning.
        written = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY) if self._is_json else scores.astype("<f8").tobytes()
        return self._encode(
            ids.values, ids.texts, ids.indices, ids.starts, ids.lengths, written, flags, self.pieces, scored_at_ms
        )


def _pieces(id_field: str, model: str, of: ResultSettings) -> Pieces:
    form = KINDS.index(cast("Kind", of.format))
    if form == _JSON:
        after = b',"is_fraud":%b,"model":%b,"scored_at_ms":'
        false, true = (after % (flag, orjson.dumps(model)) for flag in (b"false", b"true"))
        return b"{%b:" % orjson.dumps(id_field), b',"fraud_score":', false, true, b"}", b',"late":true}', form
    start, name = prefix(of.schema_id), model.encode()
    if form == _AVRO:
        name = varint(2 * len(name)) + name
        return start, b"", b"\0" + name, b"\1" + name, b"\0", b"\1", form
    # A 0 for the first message of the schema; then tags: field number << 3 | wire type.
    name = b"\x22" + varint(len(name)) + name + b"\x28"
    return start + b"\0\x0a", b"\x11", b"\x18\0" + name, b"\x18\1" + name, b"", b"\x30\1", form


def _encode(
    values: Values,
    texts: bytes,
    indices: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    scores: bytes,
    flags: NDArray[Any],
    pieces: Pieces,
    scored_at_ms: int,
) -> list[bytes]:
    """The reference of rows_encode in native/rows/encode.c. flags (n,): 1 for fraud, 2 for late."""
    before_id, before_score, *after, form = pieces
    after_score, after_time = after[:2], after[2:]
    ids: Sequence[bytes] = Identifiers(values, indices, starts, lengths, texts)
    times = (b"%d" % scored_at_ms, varint(2 * scored_at_ms), varint(scored_at_ms))
    if form == _JSON:
        printed = scores[1:-1].split(b",") if len(ids) else []
    else:
        printed = [scores[at : at + 8] for at in range(0, len(scores), 8)]
        named = [orjson.loads(one).encode() if one.startswith(b'"') else one for one in ids]
        ids = [varint(len(one) << (form == _AVRO)) + one for one in named]
    return [
        b"".join((before_id, identifier, before_score, score, after_score[flag & 1], times[form], after_time[flag >> 1]))
        for identifier, score, flag in zip(ids, printed, flags.astype(int).tolist(), strict=True)
    ]


class NotAResult(ValueError):
    """saker did not write it."""


def read_result(value: bytes | None) -> Result:
    """A result of any form; numbers of JSON are `Number`. Raises `NotAResult`."""
    with contextlib.suppress(ValueError, TypeError, KeyError, IndexError, struct.error, RecursionError):
        if value and not value[0]:
            return _read_binary(value)
        answer = json.loads(value or b"", parse_int=Number, parse_float=Number)
        model, score, is_fraud = answer["model"], answer["fraud_score"], answer["is_fraud"]
        if isinstance(model, str) and isinstance(score, Number) and isinstance(is_fraud, bool):
            return Result(model, float(score), is_fraud, answer)
    raise NotAResult("saker did not write this result")


def _read_binary(value: bytes) -> Result:
    """As `_encode` puts it together. Only Protobuf has a 0 after the prefix: no identifier is empty."""
    tag = int(value[ID_BYTES] == 0)  # bytes before each field
    identifier, at = _text(value, ID_BYTES + 2 * tag, tag)
    score, flag = struct.unpack_from("<d", value, at + tag)[0], value[at + 8 + 2 * tag]
    model, end = _text(value, at + 9 + 3 * tag, tag)
    tags = (ID_BYTES + 1, at, at + 9, at + 11, end)
    if flag > 1 or end >= len(value) or (tag and bytes(value[place] for place in tags) != b"\x0a\x11\x18\x22\x28"):
        raise NotAResult
    return Result(model, score, bool(flag), {}, identifier)


def _text(value: bytes, at: int, tag: int) -> tuple[str, int]:
    """The string at `at`, and where it ends."""
    length = shift = 0
    while True:
        length |= (value[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if value[at - 1] < 0x80:  # noqa: PLR2004
            break
    end = at + (length if tag else length >> 1)
    return value[at:end].decode(), end
