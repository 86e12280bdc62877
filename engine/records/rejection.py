"""Why a record is not scored: a value, not an exception. It travels with the batch and delays no other record.

It contains no value of the record, since its message may be logged where the record must not be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "empty_record", "invalid_json", "too_deep", "not_an_object", "missing_field", "wrong_type", "out_of_range",
    "repeated_field", "invalid_avro", "invalid_protobuf", "no_schema_id", "unknown_schema", "schema_mismatch", "not_finite",
    "worker_crash", "undeliverable", "deleted_row",
]  # fmt: skip

#: Deepest nesting of objects and arrays that a record may have, the record itself being 1.
MAX_DEPTH = 64
_LONGEST_NAME = 200  # a producer's field name can be of any length; a Kafka header should not


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the record at `index` of the batch cannot be scored, and which field is to blame, if one is."""

    index: int
    reason: Reason
    message: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a record; with the field that is to blame it becomes a `Rejection`."""

    reason: Reason
    message: str

    def of(self, index: int, field: str | None = None, where: int | None = None) -> Rejection:
        """where: the byte of the record at which it shows."""
        if field is not None and len(field) > _LONGEST_NAME:
            field = field[:_LONGEST_NAME] + "..."
        place = "" if field is None else f"field {field!r}: "
        return Rejection(index, self.reason, f"{place}{self.message}{'' if where is None else f' at byte {where}'}", field)


EMPTY = Fault("empty_record", "expected a JSON object, got a record without a value")
NOT_UTF8 = Fault("invalid_json", "expected a JSON object, got text that is not UTF-8")
NOT_JSON = Fault("invalid_json", "expected a JSON object, got invalid JSON")
TOO_DEEP = Fault("too_deep", f"expected at most {MAX_DEPTH} objects and arrays within each other, got more")
NOT_AN_OBJECT = Fault("not_an_object", "expected a JSON object, got another JSON value")
REPEATED = Fault("repeated_field", "expected it once, got it again")
NESTED = Fault("wrong_type", "expected a number, a string or null, got an object or an array")
BOOLEAN = Fault("wrong_type", "expected a number or a string, got true or false")
NOT_A_NUMBER = Fault("wrong_type", "expected a number, got a string that is none")
OTHER_TYPE = Fault("wrong_type", "expected a value that the feature can use, got one of another type")
NOT_TEXT = Fault("wrong_type", "expected a string in UTF-8, got other bytes")
NOT_AVRO = Fault("invalid_avro", "expected a record of its Avro schema, got bytes that do not fit it")
NOT_PROTOBUF = Fault("invalid_protobuf", "expected a Protobuf message of its schema, got bytes that do not fit it")
NOT_INDEXED = Fault("invalid_protobuf", "expected the indices of the message's type behind the schema id, got other bytes")
NOT_FRAMED = Fault("no_schema_id", "expected Confluent's wire format (a zero byte and a schema id of 4 bytes), got other bytes")
NOT_A_TIME = Fault("wrong_type", "expected a time, got a string that is neither a number nor ISO 8601")
NO_OBJECT = Fault("wrong_type", "expected an object or null, got another value")
NO_ARRAY = Fault("wrong_type", "expected an array or null, got another value")
OUT_OF_RANGE = Fault("out_of_range", "expected a number within float32 (3.4e38), got one beyond")
DELETED = Fault("deleted_row", "expected a row in the envelope, got the message that it was deleted")
NO_IDENTIFIER = Fault("missing_field", "expected an identifier, got nothing")
MISSING = Fault("missing_field", "expected a value, got nothing")

#: By the numbers that the native decoder gives them (enum fault in kernels/native/rows/rows.h).
BY_NUMBER = (
    EMPTY, BOOLEAN, NESTED, NOT_A_NUMBER, OUT_OF_RANGE, REPEATED, MISSING, NO_IDENTIFIER, NOT_A_TIME, NO_OBJECT, NO_ARRAY,
    OTHER_TYPE, NOT_TEXT, NOT_AVRO, TOO_DEEP, NOT_FRAMED, NOT_PROTOBUF,
)  # fmt: skip
