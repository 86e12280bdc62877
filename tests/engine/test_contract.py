import json

import pytest

from saker.engine.contract import METADATA_KEY, Contract, Feature, Golden, Provenance, read_contract
from saker.engine.errors import ModelRefused

CONTRACT = Contract(
    features=(
        Feature("TransactionAmt", required=True),
        Feature("ProductCD", "category", vocabulary=("C", "W", "ü")),
        Feature("hour", "derived", source="TransactionDT", derivation="hour_of_day"),
    ),
    threshold=0.25,
    provenance=Provenance("run", "sha", (1.0, 2.0)),
    golden=(Golden('{"TransactionID":1}', (0.1, None, 3.0), 0.0123),),
)


def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 0x7F | 0x80]) + varint(n >> 7)


def delimited(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_file(text: str) -> bytes:
    """ir_version, an empty graph, and the document: the wire format written out, so no library agrees with itself."""
    entry = delimited(1, METADATA_KEY.encode()) + delimited(2, text.encode())
    return varint(1 << 3) + varint(10) + delimited(7, b"") + delimited(14, entry)


def test_what_is_written_is_read() -> None:
    assert read_contract(model_file(CONTRACT.to_json())) == CONTRACT


def test_a_newer_format_is_refused_by_number() -> None:
    newer = json.dumps({**json.loads(CONTRACT.to_json()), "format_version": 4})
    with pytest.raises(ModelRefused, match="format version 4, this saker reads up to 3"):
        read_contract(model_file(newer))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no contract"),
        (b"not a model", "not an ONNX file"),
        (model_file(CONTRACT.to_json())[:-5], "cut short"),
        (model_file('{"format_version":1}'), "damaged"),
        (model_file("[]"), "damaged"),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        read_contract(data)


@pytest.mark.parametrize(
    "feature",
    [{"kind": "colour"}, {"kind": "derived"}, {"kind": "derived", "source": "t", "derivation": "unknown"}],
)
def test_a_feature_it_cannot_build_is_refused(feature: dict[str, str]) -> None:
    with pytest.raises(ModelRefused, match="'f'"):
        Feature("f", **feature)  # type: ignore[arg-type]


def test_feature_names_are_unique() -> None:
    with pytest.raises(ModelRefused, match="repeated: a"):
        Contract(features=(Feature("a"), Feature("a")))


@pytest.mark.parametrize("field", ["fraud_score", "is_fraud", "model", "scored_at_ms", "late"])
def test_an_identifier_that_a_result_would_hold_twice_is_refused(field: str) -> None:
    with pytest.raises(ModelRefused, match=f"the identifier's field is '{field}', and a result has a field of that name"):
        Contract((Feature("amount"),), id_field=field)
