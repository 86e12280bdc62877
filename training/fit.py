"""Labelled records to a Booster and its contract. The matrix comes from the serving decoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saker.engine.contract import Contract, Feature, Golden, Provenance
from saker.engine.history.table_history import TableHistory, history_of
from saker.engine.paths import parse_path, path_text
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import JSON, Format
from saker.engine.velocity import EventTime
from saker.training.drift import distribution
from saker.training.evaluate import evaluate, threshold_at_false_positive_rate
from saker.training.record_files import RecordFile
from saker.training.tables import TableError, features_of, is_time, labels_of, require, seconds, to_records

Report = Callable[[str], None]

_DECODE_BATCH = 1000
_GOLDEN = 8
#: Earlier records that a golden record needs, where there are such.
_LONGEST_HISTORY = 200
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
    #: Velocity features, behind those of the columns; computed in the order of time.
    velocity: tuple[Feature, ...] = ()

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
    contract = Contract(
        (*features, *settings.velocity),
        id_field=str(id_steps[-1]),
        id_path=settings.id_field if len(id_steps) > 1 else None,
        event_time=EventTime(settings.time if sent is not None else path_text((settings.time,)), settings.time_unit)
        if settings.velocity
        else None,
    )
    records, of = (to_records(inputs), JSON) if sent is None else (sent.records, sent.format)
    matrix, kept, rejected, words = build_matrix(contract, records, of, report)
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
    scores = scores[first_test - first_stop :]
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

    def as_json(row: int) -> bytes:
        record = records[kept[row]]
        return record if sent is None else sent.as_json(record)

    newest_records = [as_json(row) for row in range(first_test, len(kept))]
    golden = [
        Golden(
            as_json(row).decode(),
            tuple(None if np.isnan(value) else float(value) for value in matrix[row]),
            float(scores[row - first_test]),
            tuple(as_json(at).decode() for at in _history_rows(contract, words, row)),
        )
        for row in first_test + _golden_rows(contract, words, first_test, scores)
    ]
    contract = replace(contract, golden=tuple(golden))
    return Trained(booster, contract, metrics, newest_records, labels[first_test:], scores)


class Built(NamedTuple):
    """The rows (n, f) that the decoder makes of records, and which records they are; rejected ones have no row.

    rejected: why the first of these was rejected, and which it was. inputs: (n, words) of velocity features.
    """

    matrix: NDArray[np.float32]
    kept: NDArray[np.int64]
    rejected: str
    inputs: NDArray[np.int64]


def build_matrix(contract: Contract, records: Sequence[bytes], of: Format = JSON, report: Report = lambda _: None) -> Built:
    """Decode records in the order of their log."""
    history = history_of(contract)
    decoder = Decoder(contract, of=of, history=history)
    matrix = np.empty((len(records), len(contract.features)), np.float32)
    kept: list[int] = []
    words: list[NDArray[np.int64]] = []
    rejected = ""
    for start in range(0, len(records), _DECODE_BATCH):
        decoded = decoder.decode(records[start : start + _DECODE_BATCH])
        matrix[len(kept) : len(kept) + len(decoded.ids)] = decoded.matrix
        kept += (start + decoded.indices).tolist()
        if decoded.rejections and not rejected:
            first = decoded.rejections[0]
            rejected = f"row {start + first.index + 1}, {first.message}"
        words.append(decoded.inputs.copy())
    if history is not None:
        _report_history(history, report)
    return Built(
        matrix[: len(kept)],
        np.array(kept, np.int64),
        rejected,
        np.concatenate(words) if words else np.empty((0, 0), np.int64),
    )


def _report_history(history: TableHistory, report: Report) -> None:
    figures = history.statistics
    report(f"velocity features of {figures['keys']:,} keys")
    if figures["without_time"]:
        report(f"{figures['without_time']:,} rows have no event time from 1970 to 2099: their velocity features are missing")
    if figures["evicted"]:
        report(f"{figures['evicted']:,} keys were dropped for lack of memory; their later features have too short a history")


def _key_words(contract: Contract) -> list[list[int]]:
    """Of each key set the words of its identities."""
    layout = contract.velocity_layout
    if layout is None:
        return []
    return [[layout.identity_word(part) + half for part in key_set.parts for half in (0, 1)] for key_set in layout.key_sets]


def _is_whole(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which keys (n, words) have all their parts; a missing one is two zeros."""
    whole: NDArray[np.bool_] = np.all(np.any(keys.reshape(len(keys), -1, 2), axis=2), axis=1)
    return whole


def _history_rows(contract: Contract, words: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    """The earlier rows that have a key in common with this one."""
    same = np.zeros(row, np.bool_)
    for of_key in _key_words(contract):
        if _is_whole(words[[row]][:, of_key])[0]:
            same |= (words[:row, of_key] == words[row, of_key]).all(axis=1)
    return np.flatnonzero(same)


def _golden_rows(contract: Contract, words: NDArray[np.int64], first: int, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Some rows from `first` on, over the whole range of scores, the lowest and the highest among them.

    With velocity features only those with short histories, since each golden record carries its own.
    """
    usable = np.arange(len(scores))
    if key_words := _key_words(contract):
        earlier = np.zeros(len(words), np.int64)
        for of_key in key_words:
            keys = words[:, of_key]
            earlier += _is_whole(keys) * pd.DataFrame(keys).groupby(list(range(len(of_key)))).cumcount().to_numpy()
        earlier = earlier[first:]
        usable = np.flatnonzero(earlier <= max(_LONGEST_HISTORY, np.sort(earlier)[min(_GOLDEN, len(earlier)) - 1]))
    order = usable[np.argsort(scores[usable], kind="stable")]
    chosen: NDArray[np.int64] = order[np.linspace(0, len(order) - 1, _GOLDEN).astype(int)]
    return chosen


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


def _digest(records: list[bytes], labels: NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(record + b"\n")
    digest.update(labels.tobytes())
    return digest.hexdigest()
