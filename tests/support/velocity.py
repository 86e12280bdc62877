"""A model whose score depends on velocity features, records for it, and the scores that the log says."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import orjson
from numpy.typing import NDArray

from saker.engine.contract import Contract, Feature, Golden
from saker.engine.history.partition_history import COMPLETE, PartitionHistory
from saker.engine.kafka.reader import Record, RecordsRead, read_topic
from saker.engine.kernels.identity import NO_KEY
from saker.engine.records.decode import Decoder
from saker.engine.velocity import EventTime, Velocity, parse_window
from saker.export.proven_export import export_proven
from saker.training.fit import build_matrix
from tests.support.serving import Topics

HOUR = parse_window("1h")
VELOCITY = {
    "n_1h": Velocity(("card",), "count", HOUR),
    "spend_1h": Velocity(("card",), "sum", HOUR, "amount", 2),
    "z_1h": Velocity(("card",), "zscore", HOUR, "amount", 2),
    "since_1h": Velocity(("card",), "seconds_since_last", HOUR),
    "shops_1h": Velocity(("card",), "distinct", HOUR, "shop"),
    "max_1m": Velocity(("card", "shop"), "max", parse_window("1m"), "amount", 2),
}
OTHERS = {
    "n_2h": Velocity(("card",), "count", 2 * HOUR),
    "mean_2h": Velocity(("card", "shop"), "mean", 2 * HOUR, "amount", 2),
    "last_1h": Velocity(("shop", "card"), "last", HOUR, "amount", 2),
}
START_MS = 1_700_000_000_000


def contract_of(velocity: dict[str, Velocity] = VELOCITY) -> Contract:
    features = [Feature("amount"), *(Feature(name, "velocity", velocity=one) for name, one in velocity.items())]
    return Contract(tuple(features), id_field="id", event_time=EventTime("at", "ms"))


def payments(n: int, seed: int = 1, *, first: int = 0, cards: int = 60, spacing_ms: int = 400) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values: a few busy cards and many others, some records late, some equal in time."""
    random = np.random.default_rng(seed)
    times = START_MS + first * spacing_ms + np.cumsum(random.integers(0, 2 * spacing_ms, n))
    times -= random.integers(0, 200_000, n) * (random.random(n) < 0.05)
    card = (cards * random.random(n) ** 2).astype(int)
    amount, shop = random.gamma(2, 30, n).round(2), random.integers(0, 6, n)
    for at in range(n):
        record: dict[str, Any] = {"id": first + at, "at": int(times[at]), "card": f"c{card[at]}", "shop": int(shop[at])}
        if random.random() > 0.02:
            record["amount"] = float(amount[at])
        yield f"c{card[at]}".encode(), orjson.dumps(record)


class VelocityModel(NamedTuple):
    booster: lightgbm.Booster
    contract: Contract
    path: Path

    data: bytes

    @property
    def name(self) -> str:
        """What results call it."""
        return f"{self.path.stem}/{hashlib.sha256(self.data).hexdigest()[:8]}"

    def expected_scores(self, records: Sequence[Record], kernels: str = "off") -> dict[int, float]:
        """By identifier: what the log says, one partition after another. No record is rejected.

        kernels: off for the reference in Python, which takes long for keys with many records.
        """
        matrix, ids = rows_of(self.contract, records, kernels)
        return dict(zip(ids, self.booster.predict(matrix, num_threads=1).tolist(), strict=True))


def rows_of(contract: Contract, records: Sequence[Record], kernels: str = "off") -> tuple[NDArray[np.float32], list[int]]:
    """The matrix (n, f), and the identifiers."""
    by_partition: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record)
    rows, ids = [], []
    for partition, log in by_partition.items():
        history = PartitionHistory(contract, NO_KEY, 1 << 40, kernels, None)
        history.histories.states[partition] = history.new_state(0, COMPLETE)
        decoded = Decoder(contract, kernels, history=history).decode(RecordsRead(sorted(log, key=lambda one: one.offset)))
        assert not decoded.rejections
        rows.append(decoded.matrix.copy())
        ids += [int(one) for one in decoded.ids]
    return np.concatenate(rows), ids


def trained(folder: Path, velocity: dict[str, Velocity] = VELOCITY, rounds: int = 60) -> VelocityModel:
    """Its target is any function of all features with many steps, so that a wrong feature shows in the score."""
    contract = contract_of(velocity)
    records = [value for _, value in payments(6000, seed=7)]
    matrix = build_matrix(contract, records).matrix
    filled = np.nan_to_num(matrix, nan=-1.0)
    target = (np.sin(filled * np.arange(1, filled.shape[1] + 1)).sum(axis=1) > 0).astype(int)
    data = lightgbm.Dataset(matrix, target, feature_name=[feature.name for feature in contract.features])
    settings = {"objective": "binary", "verbose": -1, "num_leaves": 63, "min_data_in_leaf": 5, "num_threads": 1}
    booster = lightgbm.train(settings, data, rounds)
    scores = booster.predict(matrix[:20], num_threads=1).tolist()
    golden = tuple(
        Golden(
            records[at].decode(),
            tuple(None if math.isnan(value) else value for value in matrix[at].tolist()),
            scores[at],
            tuple(record.decode() for record in records[:at]),
        )
        for at in range(20)
    )
    contract = replace(contract, golden=golden)
    path = folder / "velocity.onnx"
    data = export_proven(booster, contract).data
    path.write_bytes(data)
    return VelocityModel(booster, contract, path, data)


def check_scores(
    bootstrap_servers: str,
    topics: Topics,
    models: VelocityModel | Sequence[VelocityModel],
    n: int,
    tolerance: float = 0.0,
    *,
    once: bool = True,
) -> Counter[str]:
    """Each of the n records has its score, once or at least once, by the model that its result names. Returns how many each."""
    log = read_topic(bootstrap_servers, topics.raw, n)
    served = [models] if isinstance(models, VelocityModel) else models
    expected = {one.name: one.expected_scores(log) for one in served}

    def identifier(result: Record) -> int:
        return int(orjson.loads(result.value or b"")["id"])

    results = read_topic(bootstrap_servers, topics.scored, n, distinct=identifier)
    counts, wrong = Counter[str](), list[Record]()
    for one in results:
        result = orjson.loads(one.value or b"")
        counts[result["model"]] += 1
        # Without the kernels onnxruntime scores, by another exp: in the last bit it may differ.
        if not math.isclose(result["fraud_score"], expected[result["model"]][result["id"]], rel_tol=tolerance):
            wrong.append(one)
    assert not wrong, f"{len(wrong)} of {len(results)}, first {wrong[0]}"
    assert not once or len(results) == n
    return counts
