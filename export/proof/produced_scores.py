"""The proof in production: scores that were produced, repeated by the model that they name and by its Booster.

    records + results --by identifier--> pairs --+--> decoder + session --> score --+--> differences --> Verification
                                                 +--> Booster.predict ----> score --+

Pure: how the records were read and where a model lies is the caller's business.
"""

from __future__ import annotations

import json  # which can keep a number as it is written; orjson cannot
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from saker.engine.contract import Contract
from saker.engine.errors import SakerError
from saker.engine.history.table_history import history_of
from saker.engine.model.session import Session
from saker.engine.onnx_trees import SCORE_TOLERANCE
from saker.engine.records.content import Number
from saker.engine.records.decode import Decoder, History
from saker.engine.records.encode import NotAResult, Result, read_result
from saker.engine.records.formats import JSON, Format

_BATCH, _SHOWN = 1000, 10
#: Where a record lay, as (partition, offset).
Position = tuple[int, int]


class NotVerifiable(SakerError):
    """The records and results that were given cannot be compared at all."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that results name: as it serves, and the Booster that it was made of, if that can be had."""

    session: Session
    booster: Any | None


@dataclass(frozen=True, slots=True)
class Difference:
    id: str  # as JSON; as text where the results are not JSON
    model: str
    produced: float
    session: float
    booster: float | None
    what: str  # "score", "booster" or "decision"


@dataclass(frozen=True, slots=True)
class Verification:
    records: int
    results: int
    by_model: dict[str, int]  # results that each model gave
    without_booster: tuple[str, ...]  # models that were re-scored with their own file alone
    rejected: int  # records that the contract rejects
    unscored: int  # records that it takes, and that have no result although others of their partition around them have
    unknown: int  # results whose record is not among the records
    repeated: int  # results beyond the first of a record: at least once
    scores_off: int  # further than a relative 1e-15 from the model's score now
    booster_off: int  # further than that from the Booster's score
    decisions_off: int  # is_fraud is not what the contract's threshold makes of the score
    largest: float  # relative difference
    differences: tuple[Difference, ...]  # the first few

    @property
    def passed(self) -> bool:
        wrong = (self.unscored, self.unknown, self.scores_off, self.booster_off, self.decisions_off)
        return not any(wrong)

    def to_json(self) -> str:
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=1)

    def table(self) -> str:
        """A few lines for a person."""
        models = ", ".join(f"{name} {count:,}" for name, count in sorted(self.by_model.items()))
        against = (
            "model and Booster" if not self.without_booster else f"model (no Booster of {', '.join(self.without_booster)})"
        )
        lines = [
            f"{'OK' if self.passed else 'DIFFERENT'}: {self.results:,} scores of {self.records:,} records, again by {against}",
            f"  models     {models}",
            f"  scores     {self.scores_off:,} off, {self.booster_off:,} off from the Booster, {self.decisions_off:,} "
            f"decisions off; largest difference {self.largest:.2g} relative",
            f"  records    {self.unscored:,} without a score, {self.rejected:,} that the contract rejects",
            f"  results    {self.unknown:,} without a record, {self.repeated:,} repeated",
        ]
        lines += [
            f"  {d.what:<10} {d.id}: produced {d.produced!r}, {d.model} says {d.session!r}, the Booster {d.booster!r}"
            for d in self.differences
        ]
        return "\n".join(lines)


@dataclass(slots=True)
class _Result:
    """One result and the findings about it."""

    score: float
    is_fraud: bool
    off: float = np.inf  # relative difference to the nearest score of a record with its identifier
    nearest: tuple[float, float | None] = (np.nan, None)  # the model's and the Booster's for that record
    booster_off: float = 0.0


def verify(
    records: Sequence[bytes | None],
    results: Sequence[bytes | None],
    find: Callable[[str], Model],
    positions: Sequence[Position] | None = None,
    of: Format = JSON,
    history: Callable[[Contract], History | None] = history_of,
) -> Verification:
    """Score `records` again with the model that each of `results` names, and compare.

    find: the name in a result (fraud/7) -> its model; it may raise anything if there is none.
    positions: (partition, offset) of each record. With them, a record counts as unscored only between two records of its
        partition that have results, since a window of a topic has edges. Without them, every record must have a result.

    of: how the records are written. history: what velocity features need; the earlier ones of `records` by default.

    Raises `NotVerifiable` if there are no results, or if saker did not write one of them.
    """
    by_model: dict[str, list[Result]] = defaultdict(list)
    for number, value in enumerate(results):
        try:
            answer = read_result(value)
        except NotAResult:
            raise NotVerifiable(
                f"result {number + 1} was not written by saker: expected an object with model, fraud_score and is_fraud"
            ) from None
        by_model[answer.model].append(answer)
    if not by_model:
        raise NotVerifiable("there are no scores to verify: expected at least one result")
    rejected = np.ones(len(records), np.bool_)
    scored = np.zeros(len(records), np.bool_)
    checked: list[tuple[str, str, _Result, Model]] = []
    for name, answers in by_model.items():
        model = find(name)
        id_field = model.session.contract.id_field
        found: dict[_Identity, list[_Result]] = defaultdict(list)
        for answer in answers:
            if answer.id is None and id_field not in answer.fields:
                raise NotVerifiable(f"a result of {name} has no field {id_field!r}, which identifies its record")
            identity = _identity(answer.fields[id_field]) if answer.id is None else _Identity(answer.id, "text")
            found[identity].append(_Result(answer.fraud_score, answer.is_fraud))
        for index, identifier, score, booster_score in _again(model, records, of, history(model.session.contract)):
            rejected[index] = False
            for result in (*found.get(identifier, ()), *found.get(identifier._replace(kind="text"), ())):
                scored[index] = True
                off = _relative(result.score, score)
                if off < result.off:
                    result.off, result.nearest = off, (score, booster_score)
                    result.booster_off = 0.0 if booster_score is None else _relative(result.score, booster_score)
        checked += [(name, identity.shown, result, model) for identity, same in found.items() for result in same]

    known = [entry for entry in checked if not np.isnan(entry[2].nearest[0])]
    differences = list(_differences(known))
    kinds = [difference.what for difference in differences]
    return Verification(
        records=len(records),
        results=len(results),
        by_model={name: len(answers) for name, answers in by_model.items()},
        without_booster=tuple(sorted({name for name, _, _, model in checked if model.booster is None})),
        rejected=int(rejected.sum()),
        unscored=_unscored(~rejected & ~scored, scored, positions),
        unknown=len(checked) - len(known),
        repeated=max(0, len(known) - int(scored.sum())),
        scores_off=kinds.count("score"),
        booster_off=kinds.count("booster"),
        decisions_off=kinds.count("decision"),
        largest=max((max(result.off, result.booster_off) for _, _, result, _ in known), default=0.0),
        differences=tuple(differences[:_SHOWN]),
    )


class _Identity(NamedTuple):
    """kind: number, string, or text for a result that does not say which."""

    text: str
    kind: str

    @property
    def shown(self) -> str:
        return json.dumps(self.text) if self.kind == "string" else self.text


def _identity(value: object) -> _Identity:
    return _Identity(str(value), "number" if isinstance(value, Number) else "string")


def _again(
    model: Model, records: Sequence[bytes | None], of: Format, history: History | None
) -> Iterator[tuple[int, _Identity, float, float | None]]:
    """(index, identifier, the model's score, the Booster's score) of every record that the contract takes."""
    decoder, column = Decoder(model.session.contract, of=of, history=history), model.session.contract.column or 0
    for start in range(0, len(records), _BATCH):
        decoded = decoder.decode(records[start : start + _BATCH])
        if not decoded.ids:
            continue
        scores = model.session.score(decoded.matrix).tolist()
        boosted: list[float | None] = [None] * len(scores)
        if model.booster is not None:
            predicted = np.asarray(model.booster.predict(decoded.matrix, num_threads=1), np.float64)
            boosted = predicted.reshape(len(scores), -1)[:, column].tolist()
        for index, identifier, score, other in zip(decoded.indices.tolist(), decoded.ids, scores, boosted, strict=True):
            if np.isfinite(score):  # others are rejected
                identity = _identity(json.loads(identifier, parse_int=Number, parse_float=Number))
                yield start + index, identity, score, other


def _differences(checked: list[tuple[str, str, _Result, Model]]) -> Iterator[Difference]:
    for name, identifier, result, model in checked:
        what = []
        if result.off > SCORE_TOLERANCE:
            what.append("score")
        if result.booster_off > SCORE_TOLERANCE:
            what.append("booster")
        if result.is_fraud != (result.score >= model.session.contract.threshold):
            what.append("decision")
        for word in what:
            yield Difference(identifier, name, result.score, *result.nearest, word)


def _relative(score: float, expected: float) -> float:
    if score == expected:
        return 0.0
    return abs(score - expected) / max(abs(expected), np.finfo(np.float64).tiny)


def _unscored(missing: Any, scored: Any, positions: Sequence[Position] | None) -> int:
    if positions is None:
        return int(missing.sum())
    reach: dict[int, tuple[int, int]] = {}  # partition -> the first and the last offset that has a result
    for at in np.flatnonzero(scored).tolist():
        partition, offset = positions[at]
        first, last = reach.get(partition, (offset, offset))
        reach[partition] = min(first, offset), max(last, offset)
    nothing = (0, -1)
    inside = (positions[at] for at in np.flatnonzero(missing).tolist())
    return sum(reach.get(partition, nothing)[0] < offset < reach.get(partition, nothing)[1] for partition, offset in inside)
