"""Rows in the envelopes of Debezium and CloudEvents, after the example messages of their documentation."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest

from saker.engine.config import RecordSettings
from saker.engine.contract import Contract, Feature
from saker.engine.errors import ModelRefused, ServingError
from saker.engine.records.decode import Decoder
from saker.engine.schema_registry import open_format
from tests.engine.records.decoders import NATIVE

ROWS = Contract(
    (Feature("amount", required=True), Feature("city", "category", source="home.town", vocabulary=("Oslo",)), Feature("age")),
    id_field="payment_id",
)
ROW: dict[str, Any] = {"payment_id": 1004, "amount": 12.5, "home.town": "Oslo", "age": None}
SOURCE = {
    "version": "3.0.0.Final", "connector": "postgresql", "name": "shop", "ts_ms": 1795525200123, "snapshot": "false",
    "db": "payments", "sequence": '[null,"34567"]', "schema": "public", "table": "payment", "txId": 571, "lsn": 34567,
    "xmin": None,
}  # fmt: skip


def debezium(op: str, before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": SOURCE, "op": op, "ts_ms": 1795525200456, "transaction": None}


def cloud_event(data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "com.example.payment.created",
        "source": "https://shop.example/payments",
        "id": "A234-1234-1234",
        "time": "2026-11-24T13:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    }


CREATED, UPDATED = debezium("c", None, ROW), debezium("u", {**ROW, "amount": 1}, ROW)
READ, DELETED = debezium("r", None, ROW), debezium("d", ROW, None)
#: Events of a table and of the log: Debezium writes no row.
TRUNCATED = {"source": SOURCE, "op": "t", "ts_ms": 1795525200456}
MESSAGE = {"source": SOURCE, "op": "m", "ts_ms": 1795525200456, "message": {"prefix": "foo", "content": "Ymzn"}}


def with_schema(event: dict[str, Any]) -> dict[str, Any]:
    """As Kafka Connect's JSON converter writes it by default."""
    return {"schema": {"type": "struct", "fields": [], "optional": False, "name": "shop.Envelope"}, "payload": event}


def decoder(kernels: str, **settings: Any) -> Decoder:
    return Decoder(ROWS, kernels, open_format(RecordSettings(**settings)))


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    ("envelope", "wrap"),
    [("debezium", lambda event: event), ("payload.after", with_schema)],
)
def test_rows_of_debezium(envelope: str, wrap: Any, kernels: str) -> None:
    events = [CREATED, DELETED, UPDATED, TRUNCATED, READ, MESSAGE, {"op": "c"}, {"after": {}}, ROW]
    values = [orjson.dumps(wrap(event)) for event in events]
    decoded = decoder(kernels, envelope=envelope).decode([*values, None])
    assert list(decoded.ids) == [b"1004"] * 3
    assert decoded.indices.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(decoded.matrix, np.array([[12.5, 0, np.nan]] * 3, np.float32))
    assert [(one.index, one.reason) for one in decoded.rejections] == [
        (1, "deleted_row"), (3, "deleted_row"), (5, "deleted_row"), (6, "missing_field"), (7, "missing_field"),
        (8, "missing_field"), (9, "empty_record"),
    ]  # fmt: skip
    row = "payload.after" if envelope != "debezium" else "after"
    assert decoded.rejections[3].field == f"{row}.payment_id"


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_data_of_cloud_events(kernels: str) -> None:
    values = [orjson.dumps(cloud_event(data)) for data in (ROW, None, "text")]
    decoded = decoder(kernels, envelope="cloudevents").decode(values)
    assert list(decoded.ids) == [b"1004"]
    assert [(one.reason, one.field) for one in decoded.rejections] == [
        ("missing_field", "data.payment_id"), ("wrong_type", "data"),
    ]  # fmt: skip


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_rows_of_debezium_in_avro(kernels: str, tmp_path: Path) -> None:
    row = {
        "type": "record", "name": "Value", "namespace": "shop.public.payment",
        "fields": [
            {"name": "payment_id", "type": "long"},
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
            {"name": "age", "type": ["null", "int"], "default": None},
        ],
    }  # fmt: skip
    fields = [
        {"name": "before", "type": ["null", row], "default": None},
        {"name": "after", "type": ["null", "shop.public.payment.Value"], "default": None},
        {"name": "op", "type": "string"},
    ]
    schema = fastavro.parse_schema({"type": "record", "name": "Envelope", "namespace": "shop", "fields": fields})
    file = tmp_path / "envelope.avsc"
    file.write_bytes(orjson.dumps({"type": "record", "name": "Envelope", "namespace": "shop", "fields": fields}))
    values = []
    one = {"payment_id": 7, "amount": Decimal("12.50"), "age": 40}
    for event in ({"before": None, "after": one, "op": "c"}, {"before": one, "after": None, "op": "d"}):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, event)
        values.append(out.getvalue())
    decoded = decoder(kernels, format="avro", schema_file=file, envelope="debezium").decode(values)
    np.testing.assert_array_equal(decoded.matrix, np.array([[12.5, np.nan, 40]], np.float32))
    assert [one.reason for one in decoded.rejections] == ["deleted_row"]


def test_native_and_reference_say_the_same_of_damaged_events() -> None:
    value = orjson.dumps(UPDATED)
    damaged = [value[:at] + b"x" + value[at + 1 :] for at in range(len(value))]
    damaged += [value[:at] for at in range(len(value))] + [value.replace(b'"after":{', b'"after":null,"x":{')]
    expected = decoder("off", envelope="debezium").decode(damaged)
    for variant in NATIVE:
        found = Decoder(ROWS, "auto", open_format(RecordSettings(envelope="debezium")), variant=variant).decode(damaged)
        assert found.rejections == expected.rejections
        assert list(found.ids) == list(expected.ids)


def test_deletes_are_skipped_by_default_where_there_are_some() -> None:
    assert not open_format(RecordSettings()).skip_deletes
    assert not open_format(RecordSettings(envelope="cloudevents")).skip_deletes
    assert open_format(RecordSettings(envelope="debezium")).skip_deletes
    assert not open_format(RecordSettings(envelope="debezium", skip_deletes=False)).skip_deletes
    assert open_format(RecordSettings(skip_deletes=True)).skip_deletes


@pytest.mark.parametrize("name", ["a..b", "items[0]", "[1]"])
def test_an_envelope_is_a_path_of_keys(name: str) -> None:
    with pytest.raises(ServingError, match="--envelope"):
        open_format(RecordSettings(envelope=name))


def test_a_path_that_gets_too_long_in_its_envelope_is_refused() -> None:
    of = open_format(RecordSettings(envelope=".".join("a" * 64)))
    with pytest.raises(ModelRefused, match="at most 64 steps"):
        Decoder(ROWS, "off", of)
