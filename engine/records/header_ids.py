"""Schema ids in a header, as Confluent's HeaderSchemaIdSerializer writes them, put where the decoders expect them.

    header __value_schema_id: 0, id (4 bytes), message indices     -->  the header before the value
                              1, GUID (16 bytes), message indices  -->  0, a number for the GUID, the indices, the value

Message indices are Protobuf's only. A header counts more than what the value begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saker.engine.kernels import Values
from saker.engine.records.formats import ID_BYTES, Schemas, prefix

NAME = "__value_schema_id"
GUID_BYTES = 16
_BY_ID, _BY_GUID = 0, 1
#: A value that names no schema.
_NOTHING = b"\xff"


#: Of a batch: (index, value) of the records that have a header of a name, the last one of several.
WithHeader = Callable[[str], Sequence[tuple[int, bytes | None]]]


def framed(values: Values, found: Sequence[tuple[int, bytes | None]], schemas: Schemas) -> Values:
    """The values, of which those with a header begin with what it says. found: (index, header) pairs."""
    if not found:
        return values
    made = [values[at] for at in range(len(values))]
    for index, header in found:
        value = made[index]
        if value is not None:  # a tombstone has no schema
            made[index] = _prefix(header or b"", schemas) + value
    return made


def _prefix(header: bytes, schemas: Schemas) -> bytes:
    if header[:1] == bytes([_BY_ID]) and len(header) >= ID_BYTES:
        return header
    if header[:1] == bytes([_BY_GUID]) and len(header) > GUID_BYTES:
        number = schemas.number_of(header[1 : 1 + GUID_BYTES])
        if number is not None:
            return prefix(number) + header[1 + GUID_BYTES :]
    return _NOTHING
