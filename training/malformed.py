"""Twenty ways in which a record can be wrong, each with the reason that it must be rejected for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson


class Malformed(NamedTuple):
    """A kind of mistake, the record that makes it, and the expected error code and field."""

    kind: str
    value: bytes | None
    code: str
    field: str


def malformed(good: bytes) -> Iterator[Malformed]:
    """The twenty kinds, made from a good record of generated transactions."""
    record: dict[str, Any] = orjson.loads(good)

    def with_(**changes: Any) -> bytes:
        return orjson.dumps({**record, **changes})

    def without(name: str) -> bytes:
        return orjson.dumps({key: value for key, value in record.items() if key != name})

    yield Malformed("tombstone", None, "empty_record", "")
    yield Malformed("empty value", b"", "empty_record", "")
    yield Malformed("plain text", b"not JSON at all", "invalid_json", "")
    yield Malformed("cut short", good[: len(good) // 2], "invalid_json", "")
    yield Malformed("invalid UTF-8", good.replace(b'"ProductCD"', b'"Product\xff"', 1), "invalid_json", "")
    yield Malformed("two objects", good + good, "invalid_json", "")
    yield Malformed("NaN as a number", _replaced(good, record, "TransactionAmt", b"NaN"), "invalid_json", "")
    yield Malformed(
        "number beyond double", _replaced(good, record, "TransactionAmt", b"1e400"), "out_of_range", "TransactionAmt"
    )
    yield Malformed("array", b"[" + good + b"]", "not_an_object", "")
    yield Malformed("no identifier", without("TransactionID"), "missing_field", "TransactionID")
    yield Malformed("list of identifiers", with_(TransactionID=[1, 2]), "wrong_type", "TransactionID")
    yield Malformed("no amount", without("TransactionAmt"), "missing_field", "TransactionAmt")
    yield Malformed("amount null", with_(TransactionAmt=None), "missing_field", "TransactionAmt")
    yield Malformed("no time", without("TransactionDT"), "missing_field", "TransactionDT")
    yield Malformed("amount with a comma", with_(TransactionAmt="12,50"), "wrong_type", "TransactionAmt")
    yield Malformed("identifier true", with_(TransactionID=True), "wrong_type", "TransactionID")
    yield Malformed("category as list", with_(ProductCD=["W"]), "wrong_type", "ProductCD")
    yield Malformed("nested value", with_(C1={"count": 1}), "wrong_type", "C1")
    yield Malformed("amount twice", good[:-1] + b',"TransactionAmt":1}', "repeated_field", "TransactionAmt")
    yield Malformed("number beyond float32", with_(TransactionAmt=1e39), "out_of_range", "TransactionAmt")


def _replaced(good: bytes, record: dict[str, Any], name: str, literal: bytes) -> bytes:
    before = b'"%s":%s' % (name.encode(), orjson.dumps(record[name]))
    return good.replace(before, b'"%s":%s' % (name.encode(), literal), 1)
