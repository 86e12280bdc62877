"""The contract that most tests of the decoder use, and every decoder there is: the reference and all variants."""

from __future__ import annotations

import json
from collections.abc import Sequence

from saker.engine.contract import Contract, Feature
from saker.engine.kernels import native
from saker.engine.records.decode import Decoded, Decoder

EXTENSION, REASON = native("auto")
assert EXTENSION, REASON
NATIVE: tuple[str, ...] = tuple(EXTENSION.variants())
DECODERS = ("reference", *NATIVE)

DEVICES = ("web", "app", "café", "a long name of a device", "4829", "1.50", "true", "0", "-7")

# One feature of each sort; a name of more than 16 bytes, one that is not ASCII, one of more than a token's 32 bytes.
CONTRACT = Contract(
    (
        Feature("ratio"),
        Feature("amount", required=True),
        Feature("device", "category", vocabulary=DEVICES),
        Feature("card"),
        Feature("hour", "derived", source="t", derivation="hour_of_day"),
        Feature("day", "derived", source="t", derivation="day_of_week"),
        Feature("t"),
        Feature("montant_été"),
        Feature("a_name_that_is_longer_than_any_token_can_be"),
        Feature("blank", "category", vocabulary=("x", "")),
        Feature("must", "category", vocabulary=("n", "y"), required=True),
    ),
    id_field="id",
)


def most_handed_over(values: Sequence[bytes | None], expected: Decoded) -> int:
    """How many records a native decoder may leave to the reference: those that are rejected, and times that are no time."""
    count = len(expected.rejections)
    for index in expected.indices.tolist():
        fields = dict(json.loads(values[index] or b"", object_pairs_hook=list))
        count += abs(float(fields.get("t") or 0)) >= 1e15
    return count


def make_decoder(name: str, contract: Contract = CONTRACT) -> Decoder:
    return Decoder(contract, "off") if name == "reference" else Decoder(contract, "auto", variant=name)
