"""Labelled records to a Booster and its contract. The matrix comes from the serving decoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saker.engine.contract import Contract, Golden, Provenance
from saker.engine.paths import parse_path
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import JSON, Format
from saker.training.drift import distribution
from saker.training.evaluate import evaluate, threshold_at_false_positive_rate
from saker.training.record_files import RecordFile
from saker.training.tables import TableError, features_of, is_time, labels_of, require, seconds, to_records

Report = Callable[[str], None]

_DECODE_BATCH = 1000
_GOLDEN = 8
#: Shares of the rows, in order of time: to learn from, to stop early on; the rest, the newest, is for the figures.
_LEARN, _STOP = 0.7, 0.85


@dataclass(frozen=True, slots=True)
class Settings:
    """What to train on and how; the seed and the data determine the model."""

    label: str = "isFraud"
    time: str = "TransactionDT"
    id_field: str = "TransactionID"
    threshold: float | None = None
    seed: int = 0
    rounds: int = 300
    early_stopping_rounds: int = 25
    learning_rate: float = 0.08
    num_leaves: int = 31
    #: Of a time that is a number: s, ms, us or ns.
    time_unit: str = "s"
    #: For a CSV file: texts that mean missing, and columns to read as categories.
    missing: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    def lightgbm(self) -> dict[str, object]:
        return {
            "objective": "binary",
            "metric": "auc",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": 40,
            "feature_fraction": 0.5,
            "seed": self.seed,
            "deterministic": True,
            # Half the logical cores: OpenMP's threads spin while they wait for each other, and on two cores that are
            # shared with anything else two of them took 18 times as long as one (measured).
            "num_threads": max(1, (os.cpu_count() or 2) // 2),
            "force_row_wise": True,
            "verbose": -1,
        }


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, and its metrics on the newest rows."""

    booster: lightgbm.Booster
    contract: Contract
    metrics: dict[str, float]
    #: The newest rows, which it never saw: raw records, labels and scores.
    records: list[bytes]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]


def train(table: pd.DataFrame, settings: Settings, report: Report = lambda _: None, sent: RecordFile | None = None) -> Trained:
    """Train on `table`, split by time; raises `TableError` when a column is missing or the labels are not 0 and 1.

    sent: the records of its rows, whose fields then are named by paths; without them each row is a JSON object.
    """
    table, labels, times, order = _labelled(table, settings)
    report(f"{len(table):,} transactions, {labels.mean():.2%} fraud")
    learn, stop = int(len(table) * _LEARN), int(len(table) * _STOP)

    inputs = table.drop(columns=[settings.label])
    sent = sent.chosen(order) if sent is not None else None
    features = features_of(
        inputs.iloc[:learn].drop(columns=[settings.id_field]),
        time=settings.time,
        text=settings.text,
        unit=settings.time_unit,
        paths=sent is not None,
    )
    if sent is not None:
        times_left = [str(name) for name in inputs if name != settings.time and is_time(inputs[name])]
        if left_out := [*sent.opaque(), *times_left]:
            report(f"not learned from, since they are arrays, maps, bytes, times or empty: {', '.join(left_out)}")
    # In results the identifier has the name of its field, without the path.
    id_steps = parse_path(settings.id_field) if sent is not None else (settings.id_field,)
    contract = Contract(features, id_field=str(id_steps[-1]), id_path=settings.id_field if len(id_steps) > 1 else None)
    records, of = (to_records(inputs), JSON) if sent is None else (sent.records, sent.format)
    matrix, kept, rejected = build_matrix(contract, records, of)
    if not len(kept):
        raise TableError(f"not one of the {len(records):,} rows can be scored; the first: {rejected}")
    if rejected:
        report(
            f"{len(records) - len(kept):,} rows are left out, since saker would reject them in a stream; the first: {rejected}"
        )
    report(f"matrix of {matrix.shape[0]:,} x {matrix.shape[1]} from the serving decoder")
    digest, labels = _digest(records, labels), labels[kept]
    first_stop, first_test = np.searchsorted(kept, [learn, stop])

    booster = _boost(contract, matrix, labels, (first_stop, first_test), settings, report)
    scores = np.asarray(booster.predict(matrix[first_stop:]))
    validation = slice(0, first_test - first_stop)
    chosen = settings.threshold
    if chosen is None:
        chosen = threshold_at_false_positive_rate(labels[first_stop:first_test], scores[validation])
    # Of its own training rows a model is too sure: the score's reference is the rows that it only stopped on.
    score_reference = distribution(scores[validation])
    scores, newest = scores[first_test - first_stop :], kept[first_test:]
    contract = replace(
        contract,
        threshold=chosen,
        provenance=Provenance(
            data_sha256=digest,
            time_range=(float(times[0]), float(times[-1])),
            learned_until=float(times[stop]),
        ),
        reference=tuple(distribution(matrix[:first_stop, column]) for column in range(matrix.shape[1])),
        score_reference=score_reference,
    )
    metrics = {
        **evaluate(labels[first_test:], scores),
        "trees": float(booster.num_trees()),
        "rejected_rows": float(len(records) - len(kept)),
    }
    newest_records = [records[at] if sent is None else sent.as_json(records[at]) for at in newest]
    contract = replace(contract, golden=_golden(newest_records, matrix[first_test:], scores))
    return Trained(booster, contract, metrics, newest_records, labels[first_test:], scores)


def build_matrix(
    contract: Contract, records: Sequence[bytes], of: Format = JSON
) -> tuple[NDArray[np.float32], NDArray[np.int64], str]:
    """The rows (n, f) that the decoder makes of `records`, and which records they are; rejected ones have no row.

    The third is why the first of these was rejected, and which it was.
    """
    decoder = Decoder(contract, of=of)
    matrix = np.empty((len(records), len(contract.features)), np.float32)
    kept: list[int] = []
    rejected = ""
    for start in range(0, len(records), _DECODE_BATCH):
        decoded = decoder.decode(records[start : start + _DECODE_BATCH])
        matrix[len(kept) : len(kept) + len(decoded.ids)] = decoded.matrix
        kept += (start + decoded.indices).tolist()
        if decoded.rejections and not rejected:
            first = decoded.rejections[0]
            rejected = f"row {start + first.index + 1}, {first.message}"
    return matrix[: len(kept)], np.array(kept, np.int64), rejected


def _labelled(
    table: pd.DataFrame, settings: Settings
) -> tuple[pd.DataFrame, NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The table, its labels and its times in the order of time; and that order."""
    for column, option in ((settings.label, "--label"), (settings.time, "--time"), (settings.id_field, "--id")):
        require(table, column, option)
    for column in settings.text:
        require(table, column, "--text")
    truth = labels_of(table, settings.label)
    times = seconds(table, settings.time, "--time", settings.time_unit)
    order = np.argsort(times, kind="stable")
    return table.iloc[order].reset_index(drop=True), truth[order], times[order], order


def _boost(
    contract: Contract,
    matrix: NDArray[np.float32],
    labels: NDArray[np.int64],
    split: tuple[int, int],
    settings: Settings,
    report: Report,
) -> lightgbm.Booster:
    first_stop, first_test = split
    for name, part in (("first 70 %", labels[:first_stop]), ("next 15 %", labels[first_stop:first_test])):
        if len(set(part.tolist())) != 2:  # noqa: PLR2004 - both labels
            raise TableError(f"the {name} of the rows (by time) need both labels; use more data")
    learn = lightgbm.Dataset(
        matrix[:first_stop],
        labels[:first_stop],
        feature_name=[feature.name for feature in contract.features],
        categorical_feature=[at for at, feature in enumerate(contract.features) if feature.kind == "category"],
        params={"verbose": -1},
    )
    stop = learn.create_valid(matrix[first_stop:first_test], labels[first_stop:first_test])

    def progress(environment: lightgbm.callback.CallbackEnv) -> None:
        if environment.iteration % 50 == 49:  # noqa: PLR2004 - a line each 50 rounds
            report(f"round {environment.iteration + 1}: validation AUC {environment.evaluation_result_list[0][2]:.4f}")

    booster = lightgbm.train(
        settings.lightgbm(),
        learn,
        settings.rounds,
        valid_sets=[stop],
        callbacks=[lightgbm.early_stopping(settings.early_stopping_rounds, verbose=False), progress],
    )
    # Only the trees up to the best round, as every later reader of the text will see them.
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _golden(records: list[bytes], matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> tuple[Golden, ...]:
    """Some of these records, over the whole range of scores, the lowest and the highest among them."""
    order = np.argsort(scores, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, _GOLDEN).astype(int)]
    return tuple(
        Golden(
            records[at].decode(),
            tuple(None if np.isnan(value) else float(value) for value in matrix[at]),
            float(scores[at]),
        )
        for at in chosen
    )


def _digest(records: list[bytes], labels: NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(record + b"\n")
    digest.update(labels.tobytes())
    return digest.hexdigest()
