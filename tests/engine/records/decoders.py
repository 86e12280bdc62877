"""The contract that most tests of the decoder use, and every decoder there is: the reference and all variants."""

from __future__ import annotations

from saker.engine.contract import Contract, Feature
from saker.engine.kernels import native
from saker.engine.records.decode import Decoder

EXTENSION, REASON = native("auto")
assert EXTENSION, REASON
NATIVE: tuple[str, ...] = tuple(EXTENSION.variants())
DECODERS = ("reference", *NATIVE)

# One feature of each sort; a name of more than 16 bytes, one that is not ASCII, one of more than a token's 32 bytes.
CONTRACT = Contract(
    (
        Feature("ratio"),
        Feature("amount", required=True),
        Feature("device", "category", vocabulary=("web", "app", "café", "a long name of a device")),
        Feature("card"),
        Feature("hour", "derived", source="t", derivation="hour_of_day"),
        Feature("day", "derived", source="t", derivation="day_of_week"),
        Feature("t"),
        Feature("montant_été"),
        Feature("a_name_that_is_longer_than_any_token_can_be"),
        Feature("must", "category", vocabulary=("n", "y"), required=True),
    ),
    id_field="id",
)


def make_decoder(name: str, contract: Contract = CONTRACT) -> Decoder:
    return Decoder(contract, "off") if name == "reference" else Decoder(contract, "auto", variant=name)
