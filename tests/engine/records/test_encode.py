"""Results are JSON that says what went in; orjson reads it back."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saker.engine.config import ResultSettings
from saker.engine.records.decode import Identifiers
from saker.engine.records.encode import AVRO_SCHEMA, PROTOBUF_SCHEMA, Encoder, NotAResult, read_result
from tests.engine.records.decoders import make_decoder
from tests.support.examples import examples
from tests.support.protoc import message_class

DECODER = make_decoder("baseline")
NATIVE, PYTHON = "auto", "off"


def ids_of(texts: list[str]) -> Identifiers:
    return DECODER.decode([None, *(b'{"amount":1,"id": %b ,"must":"y"}' % text.encode() for text in texts), b"bad"]).ids


IDENTIFIERS = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(min_size=1).map(json.dumps),
)
SCORES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1), st.sampled_from([0.0, -0.0, 1.0, 5e-324, 0.1, 1e22])
)


@settings(max_examples=examples(400))
@given(st.lists(st.tuples(IDENTIFIERS, SCORES), max_size=20), st.floats(0, 1), st.text(), st.integers(0, 2**53))
def test_what_is_written_reads_back(rows: list[tuple[str, float]], threshold: float, model: str, now_ms: int) -> None:
    ids, scores = ids_of([text for text, _ in rows]), np.array([score for _, score in rows], np.float64)
    late = np.arange(len(rows)) % 3 == 0 if now_ms % 2 else None
    lines = Encoder("TransactionID", threshold, model, NATIVE).encode(ids, scores, now_ms, late)
    assert list(lines) == list(Encoder("TransactionID", threshold, model, PYTHON).encode(ids, scores, now_ms, late))
    assert len(lines) == len(rows)
    for place, (line, (text, score)) in enumerate(zip(lines, rows, strict=True)):
        read = orjson.loads(line)
        assert read.pop("late", False) is (late is not None and bool(late[place]))
        assert list(read) == ["TransactionID", "fraud_score", "is_fraud", "model", "scored_at_ms"]
        assert read["TransactionID"] == orjson.loads(text)
        assert np.float64(read["fraud_score"]).tobytes() == np.float64(score).tobytes()
        assert read["is_fraud"] is (score >= threshold)
        assert (read["model"], read["scored_at_ms"]) == (model, now_ms)


@pytest.mark.parametrize("kernels", [NATIVE, PYTHON])
def test_the_bytes(kernels: str) -> None:
    lines = Encoder("tx id", 0.5, "fraud/7", kernels).encode(
        ids_of(["9007199254740993", '"é"']), np.array([0.012345678, 0.5]), 17
    )
    assert list(lines) == [
        b'{"tx id":9007199254740993,"fraud_score":0.012345678,"is_fraud":false,"model":"fraud/7","scored_at_ms":17}',
        '{"tx id":"é","fraud_score":0.5,"is_fraud":true,"model":"fraud/7","scored_at_ms":17}'.encode(),
    ]


@pytest.fixture(scope="module")
def by_library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[bytes], tuple[Any, ...]]]:
    schema = json.loads(AVRO_SCHEMA)
    schema["fields"][4]["type"] = "long"  # a date cannot be every number
    avro = fastavro.parse_schema(schema)
    score = message_class(PROTOBUF_SCHEMA, "saker.Score", tmp_path_factory.mktemp("score"))

    def by_fastavro(data: bytes) -> tuple[Any, ...]:
        source = io.BytesIO(data)
        told: Any = fastavro.schemaless_reader(source, avro, None)
        assert source.read() == b""
        return tuple(told.values())

    def by_protobuf(data: bytes) -> tuple[Any, ...]:
        told = score.FromString(data)
        return tuple(getattr(told, field.name) for field in score.DESCRIPTOR.fields)

    return {"avro": by_fastavro, "protobuf": by_protobuf}


@settings(max_examples=examples(300))
@given(
    st.lists(st.tuples(IDENTIFIERS, SCORES), max_size=20),
    st.floats(0, 1),
    st.text(),
    st.integers(0, 2**53),
    st.integers(0, 2**31 - 1),
    st.sampled_from(["avro", "protobuf"]),
)
def test_what_is_written_in_avro_and_protobuf_reads_back_by_their_libraries(
    by_library: dict[str, Callable[[bytes], tuple[Any, ...]]],
    rows: list[tuple[str, float]],
    threshold: float,
    model: str,
    now_ms: int,
    schema: int,
    kind: str,
) -> None:
    ids, scores = ids_of([text for text, _ in rows]), np.array([score for _, score in rows], np.float64)
    late = np.arange(len(rows)) % 3 == 0 if now_ms % 2 else None
    of = ResultSettings(kind, schema)
    values = list(Encoder("tx id", threshold, model, NATIVE, of).encode(ids, scores, now_ms, late))
    assert values == list(Encoder("tx id", threshold, model, PYTHON, of).encode(ids, scores, now_ms, late))
    for place, (value, (text, score)) in enumerate(zip(values, rows, strict=True)):
        prefix = b"\0" + schema.to_bytes(4, "big") + (b"\0" if kind == "protobuf" else b"")
        assert value.startswith(prefix)
        name = orjson.loads(text) if text.startswith('"') else text
        is_late = late is not None and bool(late[place])
        told = by_library[kind](value[len(prefix) :])
        assert told == (name, score, score >= threshold, model, now_ms, is_late)
        read = read_result(value)
        assert (read.id, read.fraud_score, read.is_fraud, read.model) == told[:4]
        assert math.copysign(1, told[1]) == math.copysign(1, read.fraud_score) == math.copysign(1, score)


@pytest.mark.parametrize("kind", ["json", "avro", "protobuf"])
def test_what_saker_did_not_write_is_no_result(kind: str) -> None:
    ids = ids_of(['"abc"', "12"])
    for value in Encoder("id", 0.5, "m", NATIVE, ResultSettings(kind, 7)).encode(ids, np.array([0.25, 0.75]), 17):
        read_result(value)
        for cut in range(len(value) - (3 if kind == "protobuf" else 2)):
            with pytest.raises(NotAResult):
                read_result(value[:cut])
    for foreign in (None, b"", b"\0", b"[]", b'{"fraud_score":1}', b"\0\0\0\0\1" + b"\xff" * 40, b"[" * 100_000):
        with pytest.raises(NotAResult):
            read_result(foreign)


def test_the_schemas_are_in_the_reference() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/records.md").read_text()
    assert AVRO_SCHEMA in page
    assert PROTOBUF_SCHEMA in page


def test_identifiers_outlive_the_next_batch() -> None:
    ids = ids_of(["1", "2"])
    ids_of(["3", "4", "5"])
    assert list(ids) == [b"1", b"2"]


@pytest.mark.parametrize("kernels", [NATIVE, PYTHON])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_scores_that_do_not_fit_are_a_bug_of_the_caller(kernels: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one score for each of 2"):
        Encoder("id", 0.5, "m", kernels).encode(ids_of(["1", "2"]), np.zeros(shape), 0)


def test_identifiers_that_lie_outside_of_their_values_are_noticed() -> None:
    ids = ids_of(["1", "2"])
    ids.lengths[1] = 1000
    with pytest.raises(ValueError, match="do not belong"):
        Encoder("id", 0.5, "m", NATIVE).encode(ids, np.zeros(2), 0)
    with pytest.raises(IndexError):
        Encoder("id", 0.5, "m", NATIVE).encode(Identifiers([], ids.indices, ids.starts, ids.lengths, b""), np.zeros(2), 0)
