"""JSON bytes to a float32 matrix and scores to bytes, next to orjson, msgspec and the reference: `saker bench rows`.

Batches of 256. The result of each alternative is compared first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from saker.bench.data.stream_records import WIDTHS, contract, records
from saker.bench.micro.runner import Case
from saker.engine.contract import Contract
from saker.engine.kernels import native
from saker.engine.records.decode import Decoder
from saker.engine.records.encode import Encoder
from saker.engine.records.formats import JSON, Format

BATCH, BATCHES = 256, 4
Matrix = NDArray[np.float32]

CASES: dict[str, dict[str, Any]] = {
    "as orjson writes": {},
    "35 % null": {"null_share": 0.35},
    "35 % absent": {"null_share": 0.35, "absent": True},
    "formatted, as json.dumps writes": {"spaces": True, "null_share": 0.35},
    "shuffled": {"shuffled": True},
    "17-digit numbers": {"long": True},
}


class OrjsonPath:
    """orjson, itemgetter, one np.array: as a good engineer writes it, and no value checked.

    joined: the whole batch parsed as one array.
    """

    def __init__(self, of: Contract, *, joined: bool) -> None:
        self._joined = joined
        numbers = [f.name for f in of.features if f.kind == "number"]  # come first
        self._names, self._numbers = numbers, itemgetter(*numbers)
        self._width, self._id = len(of.features), of.id_field
        self._codes = [
            (f.name, {None: np.nan, **{text: code for code, text in enumerate(f.vocabulary)}})
            for f in of.features
            if f.kind == "category"
        ]

    def decode(self, values: list[bytes]) -> tuple[Matrix, list[Any]]:
        parsed = orjson.loads(b"[" + b",".join(values) + b"]") if self._joined else [orjson.loads(v) for v in values]
        matrix = np.empty((len(parsed), self._width), np.float32)
        first = len(self._names)
        try:
            matrix[:, :first] = np.array([self._numbers(p) for p in parsed], np.float32)
        except KeyError:  # a field is absent
            matrix[:, :first] = np.array([[p.get(name) for name in self._names] for p in parsed], np.float32)
        for column, (name, codes) in enumerate(self._codes, first):
            matrix[:, column] = [codes.get(p.get(name), np.nan) for p in parsed]
        return matrix, [p[self._id] for p in parsed]


class MsgspecPath:
    """A msgspec.Struct made of the contract: types checked, then the same as above."""

    def __init__(self, of: Contract) -> None:
        kinds = {"number": float | None, "category": str | None}
        fields: list[Any] = [(of.id_field, int)]
        fields += [(f.name, kinds[f.kind], None) for f in of.features]
        struct = msgspec.defstruct("Transaction", fields)
        self._decode = msgspec.json.Decoder(struct).decode
        self._row = msgspec.structs.astuple
        self._codes = [
            (at, {None: np.nan, **{text: code for code, text in enumerate(f.vocabulary)}})
            for at, f in enumerate(of.features, 1)
            if f.kind == "category"
        ]

    def decode(self, values: list[bytes]) -> tuple[Matrix, list[Any]]:
        rows = [self._row(self._decode(value)) for value in values]
        first = self._codes[0][0]
        matrix = np.empty((len(rows), len(rows[0]) - 1), np.float32)
        matrix[:, : first - 1] = np.array([row[1:first] for row in rows], np.float32)
        for at, codes in self._codes:
            matrix[:, at - 1] = [codes.get(row[at], np.nan) for row in rows]
        return matrix, [row[0] for row in rows]


def peers(of: Contract) -> dict[str, Callable[[list[bytes]], tuple[Matrix, list[Any]]]]:
    return {
        "orjson each": OrjsonPath(of, joined=False).decode,
        "orjson joined": OrjsonPath(of, joined=True).decode,
        "msgspec": MsgspecPath(of).decode,
    }


def decoders(of: Contract, form: Format = JSON) -> dict[str, Decoder]:
    extension, reason = native("auto")
    if extension is None:
        sys.exit(reason)
    return {name: Decoder(of, "auto", form, variant=name) for name in extension.variants()} | {
        "reference": Decoder(of, "off", form)
    }


def cases() -> Iterator[Case]:
    for width in WIDTHS:
        yield from _decoding(width)
    yield from _encoding()


def _decoding(width: int) -> Iterator[Case]:
    of = contract(width)
    for kind, options in CASES.items():
        values = records(of, BATCH * BATCHES, **options)
        batches = [values[i : i + BATCH] for i in range(0, len(values), BATCH)]
        own, others = decoders(of), peers(of)
        expected = own["reference"].decode(batches[0]).matrix
        for who, decode in others.items():
            np.testing.assert_array_equal(decode(batches[0])[0], expected, who)
        calls: dict[str, Callable[[list[bytes]], object]] = {who: decoder.decode for who, decoder in own.items()}
        calls |= others
        size = sum(map(len, values)) / len(values)
        for who, decode_batch in calls.items():
            yield Case(f"rows, {width} fields, {size:.0f} bytes, {kind}", who, _all(decode_batch, batches), len(values))


def _all(decode: Callable[[list[bytes]], object], batches: list[list[bytes]]) -> Callable[[], object]:
    return lambda: [decode(batch) for batch in batches]


def _encoding() -> Iterator[Case]:
    of = contract(50)
    ids = Decoder(of).decode(records(of, BATCH)).ids
    scores = np.random.default_rng(1).beta(0.3, 8, BATCH)
    fragments = [orjson.Fragment(identifier) for identifier in ids]

    def by_orjson() -> list[bytes]:
        return [
            orjson.dumps(
                {of.id_field: i, "fraud_score": s, "is_fraud": s >= of.threshold, "model": "fraud/7", "scored_at_ms": 17}
            )
            for i, s in zip(fragments, scores.tolist(), strict=True)
        ]

    encoders = {kernels: Encoder(of.id_field, of.threshold, "fraud/7", kernels) for kernels in ("auto", "off")}
    calls: dict[str, Callable[[], Sequence[bytes]]] = {
        "native": lambda: encoders["auto"].encode(ids, scores, 17),
        "reference": lambda: encoders["off"].encode(ids, scores, 17),
        "orjson each": by_orjson,
    }
    written = [list(call()) for call in calls.values()]
    if any(lines != written[0] for lines in written):
        sys.exit(f"the encoders differ: {[line[0] for line in written]}")
    for who, call in calls.items():
        yield Case("encode", who, call, BATCH)
