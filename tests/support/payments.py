"""Payments as nested Avro records, by schemas that change, and a model for them."""

from __future__ import annotations

import io
import random
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import lightgbm
import numpy as np

from saker.engine.contract import Contract, Feature
from saker.export.external_models import export_file

NETWORKS = ("VISA", "AMEX", "OTHER")
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "online", "type": "boolean"},
]
CARD: list[dict[str, Any]] = [
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "network", "type": {"type": "enum", "name": "Network", "symbols": list(NETWORKS)}},
    {"name": "limit", "type": ["null", "double"]},
    {"name": "age", "type": ["int", "null"]},
]


def schema(card: list[dict[str, Any]] = CARD, more: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    inner = {"type": "record", "name": "Card", "fields": card}
    fields = [*FIELDS, *(more or []), {"name": "card", "type": ["null", inner]}]
    return {"type": "record", "name": "Payment", "fields": fields}


FIRST = schema()
ADDED = schema(
    [{"name": "new", "type": {"type": "array", "items": "string"}}, *CARD], [{"name": "note", "type": ["null", "string"]}]
)
REMOVED = schema([field for field in CARD if field["name"] != "limit"])
GONE = schema([field for field in CARD if field["name"] != "amount"])
CONTRACT = Contract(
    (
        Feature("amount", path="card.amount", required=True),
        Feature("network", "category", path="card.network", vocabulary=NETWORKS),
        Feature("limit", path="card.limit"),
        Feature("age", path="card.age"),
        Feature("hour", "derived", path="at", derivation="hour_of_day"),
        Feature("online"),
    ),
    id_field="id",
)


class Trained(NamedTuple):
    booster: lightgbm.Booster
    path: Path

    def scores(self, records: dict[str, dict[str, Any]]) -> dict[str, float]:
        """LightGBM's own, of rows that are made here from what fastavro reads."""
        rows = [
            [
                float(record["card"]["amount"]), NETWORKS.index(record["card"]["network"]),
                *(np.nan if (value := record["card"].get(name)) is None else value for name in ("limit", "age")),
                record["at"].hour, record["online"],
            ]
            for record in records.values()
        ]  # fmt: skip
        matrix = np.array(rows, np.float32).astype(np.float64)
        return dict(zip(records, self.booster.predict(matrix, num_threads=1).tolist(), strict=True))


def trained_on_payments(folder: Path) -> Trained:
    """Trains, proves and exports a small model to a file in `folder`."""
    rng = np.random.default_rng(1)
    n = 4_000
    columns = [
        rng.lognormal(3, 1, n),
        rng.integers(0, 3, n),
        rng.uniform(0, 50, n),
        rng.integers(0, 60, n),
        rng.integers(0, 24, n),
    ]
    x = np.column_stack([*columns, rng.integers(0, 2, n)])
    x[rng.random(n) < 0.2, 2] = np.nan
    y = x[:, 0] + 20 * (x[:, 1] == 1) + 5 * (x[:, 4] < 5) > 60
    data = lightgbm.Dataset(x, y, feature_name=[f.name for f in CONTRACT.features], categorical_feature=["network"])
    parameters = {"objective": "binary", "num_leaves": 15, "verbose": -1, "deterministic": True}
    booster = lightgbm.train(parameters, data, 40)
    booster.save_model(folder / "booster.txt")
    path = folder / "payments.onnx"
    path.write_bytes(export_file(folder / "booster.txt", CONTRACT).data)
    return Trained(booster, path)


def payment(rng: random.Random, number: int, of: dict[str, Any]) -> dict[str, Any]:
    card = {
        "amount": Decimal(rng.randint(-10_000, 1_000_000)) / 100,
        "network": rng.choice(NETWORKS),
        "limit": rng.choice([None, 12.5, rng.uniform(0, 50)]),
        "age": rng.choice([None, rng.randint(0, 60)]),
        "new": ["a", "b"],
    }
    names = {field["name"] for field in of["fields"][-1]["type"][1]["fields"]}
    return {
        "id": f"t{number}",
        "at": 1_796_075_999_500 + number * 60_000,
        "online": rng.random() < 0.5,
        "note": "x",
        "card": None if number % 97 == 0 else {name: value for name, value in card.items() if name in names},
    }


def written(record: dict[str, Any], of: dict[str, Any], number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(of), record)
    return struct.pack(">bI", 0, number) + out.getvalue()
