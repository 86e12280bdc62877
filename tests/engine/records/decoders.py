"""The contract that most tests of the decoder use, and every decoder there is: the reference and all variants."""

from __future__ import annotations

from saker.engine.contract import Contract, Feature
from saker.engine.kernels import native
from saker.engine.records.decode import Decoder

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


# The same, from places that real topics have them in: objects in objects, an array, a key with a dot, one value for several.
NESTED = Contract(
    (
        Feature("ratio", path="ratio"),
        Feature("amount", path="card.amount", required=True),
        Feature("device", "category", path="card.holder.device", vocabulary=DEVICES),
        Feature("is_web", "category", path="card.holder.device", vocabulary=("web",)),
        Feature("card_number", path="card.number"),
        Feature("hour", "derived", path="at.t", derivation="hour_of_day", unit="ms"),
        Feature("day", "derived", path="at.t", derivation="day_of_week", unit="us"),
        Feature("t", path="at.t"),
        Feature("since", "derived", path="since", derivation="seconds", unit="ns"),
        Feature("price", path="items[0].price"),
        Feature("last", "category", path="items[2].kind", vocabulary=("x", "")),
        Feature("grid", path="grid[1][0]"),
        Feature("card.amount"),
        Feature("x", path=r"card.a\.b"),
        Feature("deep", path="card.holder.home.a_name_that_is_longer_than_any_token_can_be"),
        Feature("must", "category", path="card.must", vocabulary=("n", "y"), required=True),
    ),
    id_field="id",
    id_path="meta.id",
)
# Required fields in an array, and at the top: no order of keys can be learned.
IN_ARRAY = Contract((Feature("a", path="list[1].a", required=True), Feature("b")), id_field="id", id_path="list[0]")
CONTRACTS = {"flat": CONTRACT, "nested": NESTED, "in an array": IN_ARRAY}


def make_decoder(name: str, contract: Contract = CONTRACT) -> Decoder:
    return Decoder(contract, "off") if name == "reference" else Decoder(contract, "auto", variant=name)
