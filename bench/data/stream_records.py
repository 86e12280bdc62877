"""Contracts and records as a fraud stream has them, from a seed: 50 fields (650 bytes) and 394 fields (5 KB)."""

from __future__ import annotations

import json
import random
import string

from saker.engine.contract import Contract, Feature

WIDTHS = {50: (40, 10), 394: (380, 14)}  # fields: numbers, categories


def contract(width: int) -> Contract:
    """Numbers TransactionDT, TransactionAmt, V1...; categories C1... with vocabularies of 2 to 60 texts."""
    n_numbers, n_categories = WIDTHS[width]
    rng = random.Random(7)  # noqa: S311 - the same records each time
    features = [Feature("TransactionDT"), Feature("TransactionAmt", required=True)]
    features += [Feature(f"V{i}") for i in range(1, n_numbers - 1)]
    letters = string.ascii_lowercase + "."
    for i in range(1, n_categories + 1):
        texts = {"".join(rng.choices(letters, k=rng.randint(1, 13))) for _ in range(rng.randint(2, 60))}
        features.append(Feature(f"C{i}", "category", vocabulary=tuple(sorted(texts))))
    return Contract(tuple(features))


def _number(rng: random.Random, *, long: bool) -> str:
    """Counts, amounts and ratios as data sets have them; long: the 16 or 17 digits of a float64 as programs print it."""
    if long:
        return repr(rng.gauss(0, 100))
    forms = [
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 6))),
        lambda: f"{rng.expovariate(0.01):.2f}",
        lambda: f"{rng.gauss(0, 10):.{rng.randint(1, 6)}f}",
        lambda: f"{rng.randint(0, 300)}.0",
    ]
    return rng.choices(forms, (4, 3, 2, 1))[0]()


def records(
    of: Contract,
    count: int,
    *,
    null_share: float = 0.0,
    absent: bool = False,
    shuffled: bool = False,
    spaces: bool = False,
    long: bool = False,
) -> list[bytes]:
    """absent: null fields are left out. shuffled: each record has another order of fields. spaces: as json.dumps writes."""
    rng = random.Random(1)  # noqa: S311 - the same records each time
    comma, colon = (", ", ": ") if spaces else (",", ":")
    lines = []
    for i in range(count):
        fields = [(of.id_field, str(2987000 + i))]
        for feature in of.features:
            if not feature.required and rng.random() < null_share:
                fields += [] if absent else [(feature.name, "null")]
            elif feature.kind == "category":
                text = rng.choice(feature.vocabulary) if rng.random() < 0.97 else "never.seen"  # noqa: PLR2004 - mostly known
                fields.append((feature.name, json.dumps(text)))
            elif feature.name == "TransactionDT":
                fields.append((feature.name, str(86400 + 37 * i)))
            else:
                fields.append((feature.name, _number(rng, long=long)))
        if shuffled:
            rng.shuffle(fields)
        lines.append(("{" + comma.join(f'"{name}"{colon}{value}' for name, value in fields) + "}").encode())
    return lines
