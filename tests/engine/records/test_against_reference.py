"""The reference is the definition: every variant gives its bits and its rejections. orjson, in turn, judges the reference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saker.engine.contract import DERIVATIONS
from saker.engine.records.decode import Decoded
from tests.engine.records.decoders import CONTRACT, CONTRACTS, DECODERS, NATIVE, make_decoder
from tests.engine.records.strategies import batches, records, records_of
from tests.support.examples import examples

# What they learn depends on all the examples before.
LONG_LIVED = {(of, name): make_decoder(name, contract) for of, contract in CONTRACTS.items() for name in DECODERS}
BATCHES = {of: batches(records_of(of)) for of in CONTRACTS} | {"flat": batches(records())}


def same(found: Decoded, expected: Decoded) -> None:
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.matrix.tobytes() == expected.matrix.tobytes()
    assert found.rejections == expected.rejections
    assert list(found.ids) == list(expected.ids)
    assert found.handed_over <= len(expected.rejections)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("of", CONTRACTS)
@settings(max_examples=examples(200))
@given(data=st.data())
def test_fresh_decoder(of: str, name: str, data: st.DataObject) -> None:
    values = data.draw(BATCHES[of])
    expected = LONG_LIVED[of, "reference"].decode(values)
    decoder = make_decoder(name, CONTRACTS[of])
    same(decoder.decode(values), expected)
    same(decoder.decode(values), LONG_LIVED[of, "reference"].decode(values))


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("of", CONTRACTS)
@settings(max_examples=examples(200))
@given(data=st.data())
def test_decoder_that_has_seen_much(of: str, name: str, data: st.DataObject) -> None:
    values = data.draw(BATCHES[of])
    same(LONG_LIVED[of, name].decode(values), LONG_LIVED[of, "reference"].decode(values))


@settings(max_examples=examples(400))
@given(value=records())
def test_orjson_finds_the_same_in_what_the_reference_accepts(value: bytes) -> None:
    decoded = LONG_LIVED["flat", "reference"].decode([value])
    reasons = [rejected.reason for rejected in decoded.rejections]
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        # The one difference: orjson has no place for a number beyond float64, which a record may carry unread.
        if "infinity" not in str(error):
            assert reasons == ["invalid_json"]
        return
    assert reasons != ["invalid_json"]
    if reasons:
        return
    assert len(parsed) == len(json.loads(value, object_pairs_hook=list))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(decoded.matrix[0], np.array(_row(value), np.float32))
    if not isinstance(parsed["id"], float):
        assert orjson.loads(decoded.ids[0]) == parsed["id"]


class _Number(str):
    __slots__ = ()


def _row(value: bytes) -> list[float]:
    parsed = json.loads(value, parse_int=_Number, parse_float=_Number)
    row = []
    for feature in CONTRACT.features:
        content = parsed.get(feature.field)
        if feature.kind == "category" and content is not None:
            text = {True: "true", False: "false"}[content] if isinstance(content, bool) else str(content)
            whole, _, fraction = text.partition(".")
            if isinstance(content, _Number) and text not in feature.vocabulary and fraction and not fraction.strip("0"):
                text = whole
            row.append(feature.vocabulary.index(text) if text in feature.vocabulary else float("nan"))
        elif content is None or content == "":
            row.append(float("nan"))
        elif feature.derivation:
            row.append(DERIVATIONS[feature.derivation](float(content)))
        else:
            row.append(float(content))
    return row


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("value", ["{}", 1, bytearray(b"{}"), memoryview(b"{}")])
def test_a_value_that_is_not_bytes_is_a_bug_of_the_caller(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        make_decoder(name).decode([b"{}", value])


@pytest.mark.parametrize("name", NATIVE)
def test_a_decoder_is_not_entered_twice(name: str) -> None:
    decoder = make_decoder(name)

    class Nosy:
        def decode(self, _index: int, value: bytes, *_buffers: object) -> None:
            decoder.decode([value])

    reference, decoder._reference = decoder._reference, Nosy()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="one batch at a time"):
        decoder.decode([b"{}"])
    decoder._reference = reference
    assert len(decoder.decode([b'{"id":1,"amount":1,"must":"y"}', b"{}"]).matrix) == 1


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("size", [1000, 100_000, 3_000_000])
def test_large_records(name: str, size: int) -> None:
    text, escaped = b"a" * size, b"\\u0061" * (size // 6)
    values: list[bytes | None] = [b'{"id":1,"amount":5,"x":"%b","device":"%b","must":"y"}' % (text, escaped)] * 2
    same(make_decoder(name).decode(values), make_decoder("reference").decode(values))
