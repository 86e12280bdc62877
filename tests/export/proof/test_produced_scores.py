"""Scores that were produced, repeated: every way in which they can be wrong is put in and must be told."""

from __future__ import annotations

import json
from typing import Any

import lightgbm
import orjson
import pytest

import saker
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch
from saker.export.proof.produced_scores import Model, NotVerifiable, Verification, verify
from saker.export.proven_export import export_proven
from saker.export.selfcheck.model_zoo import LABEL, features

NAMES = [f"Column_{column}" for column in range(5)]


@pytest.fixture(scope="module")
def served(trained: Any) -> tuple[Model, list[bytes], list[bytes]]:
    """A model, records (the last two of which are rejected) and the results that serving gives."""
    booster = trained("binary")
    session = export_proven(booster, saker.contract_for(booster)).session
    records = [
        orjson.dumps({"TransactionID": number, **dict(zip(NAMES, row, strict=True))})
        for number, row in enumerate(features()[:50].tolist())
    ]
    records += [b"no", b'{"TransactionID":50,"Column_0":"x"}']
    active = ActiveModel.of(session, "fraud/1", "")
    return Model(session, booster), records, list(score_batch(active, records).results)


def check(served: tuple[Model, list[bytes], list[bytes]], results: list[bytes], **options: Any) -> Verification:
    return verify(options.pop("records", served[1]), results, lambda _: served[0], **options)


def changed(result: bytes, **fields: Any) -> bytes:
    return orjson.dumps({**orjson.loads(result), **fields})


def test_what_was_produced_is_what_model_and_booster_say(served: Any) -> None:
    found = check(served, served[2])
    assert found.passed
    assert (found.records, found.results, found.rejected, found.by_model) == (52, 50, 2, {"fraud/1": 50})
    assert found.largest <= 1e-15
    assert found.table().startswith("OK: 50 scores of 52 records, again by model and Booster")
    assert json.loads(found.to_json())["passed"] is True


def test_an_identifier_beyond_all_numbers_is_one_like_others(served: Any) -> None:
    records = [served[1][0].replace(b'"TransactionID":0', b'"TransactionID":1e999'), *served[1][1:]]
    results = [served[2][0].replace(b'"TransactionID":0', b'"TransactionID":1e999'), *served[2][1:]]
    assert records[0] != served[1][0]
    assert check(served, results, records=records).passed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"12345678901234567890123", b"12345678901234567890124"),
        (b"1e400", b"1e401"),
        (b"9007199254740992.0", b"9007199254740993.0"),
        (b"1", b"1.0"),
        (b"7", b'"7"'),
        (b'"\\u00e9"', b'"e"'),
    ],
)
def test_swapped_scores_of_identifiers_that_a_float_or_a_text_would_confuse_are_found(
    one: bytes, other: bytes, served: Any
) -> None:
    def named(values: list[bytes], first: bytes, second: bytes) -> list[bytes]:
        places = {b'"TransactionID":0,': first, b'"TransactionID":1,': second}
        for old, new in places.items():
            values = [value.replace(old, b'"TransactionID":' + new + b",") for value in values]
        return values

    records = named(served[1], one, other)
    assert check(served, named(served[2], one, other), records=records).passed
    assert not check(served, named(served[2], other, one), records=records).passed


def test_a_score_that_differs_by_more_than_its_last_bits_is_found(served: Any) -> None:
    score = orjson.loads(served[2][7])["fraud_score"]
    results = [*served[2][:7], changed(served[2][7], fraud_score=score * (1 + 1e-14)), *served[2][8:]]
    found = check(served, results)
    assert not found.passed
    assert (found.scores_off, found.booster_off, found.decisions_off) == (1, 1, 0)
    assert {(d.id, d.what, d.session) for d in found.differences} == {("7", "score", score), ("7", "booster", score)}
    assert f"score      7: produced {score * (1 + 1e-14)!r}, fraud/1 says {score!r}" in found.table()


def test_a_decision_that_is_not_the_threshold_s_is_found(served: Any) -> None:
    wrong = changed(served[2][3], is_fraud=not orjson.loads(served[2][3])["is_fraud"])
    found = check(served, [*served[2][:3], wrong, *served[2][4:]])
    assert (found.scores_off, found.decisions_off) == (0, 1)
    assert not found.passed


def test_a_model_that_is_not_the_booster_s_is_found(served: Any) -> None:
    other = lightgbm.train({"objective": "binary", "verbose": -1, "seed": 9}, lightgbm.Dataset(features(), LABEL), 3)
    found = verify(served[1], served[2], lambda _: Model(served[0].session, other))
    assert found.scores_off == 0
    assert found.booster_off == 50
    alone = verify(served[1], served[2], lambda _: Model(served[0].session, None))
    assert alone.passed
    assert "(no Booster of fraud/1)" in alone.table()


def test_lost_strange_and_repeated_results_are_counted(served: Any) -> None:
    strange = changed(served[2][0], TransactionID=999)
    found = check(served, [*served[2][1:], strange, served[2][4]])
    assert (found.unscored, found.unknown, found.repeated) == (1, 1, 1)
    assert not found.passed
    assert check(served, [*served[2], served[2][4]]).passed  # at least once


def test_in_a_window_only_what_lies_between_results_of_its_partition_is_lost(served: Any) -> None:
    positions = [(number % 2, number // 2) for number in range(len(served[1]))]
    edges = served[2][4:46]
    assert check(served, edges, positions=positions).passed
    hole = check(served, [*edges[:20], *edges[21:]], positions=positions)
    assert hole.unscored == 1
    assert not hole.passed


def test_records_with_one_identifier_are_each_given_their_own_score(served: Any) -> None:
    records = [changed(record, TransactionID=1) for record in served[1][:3]]
    results = [changed(result, TransactionID=1) for result in served[2][:3]]
    found = check(served, results[::-1], records=records)
    assert found.passed
    assert found.repeated == 0


@pytest.mark.parametrize("result", [b"no", b"[]", b'{"fraud_score":1}'])
def test_what_is_no_result_is_refused_by_its_number(result: bytes, served: Any) -> None:
    with pytest.raises(NotVerifiable, match="result 51 was not written by saker"):
        check(served, [*served[2], result])


def test_results_of_another_identifier_and_no_results_are_refused(served: Any) -> None:
    with pytest.raises(NotVerifiable, match="at least one result"):
        check(served, [])
    with pytest.raises(NotVerifiable, match="has no field 'TransactionID'"):
        check(served, [b'{"model":"fraud/1","fraud_score":1.0,"is_fraud":true,"id":1}'])
