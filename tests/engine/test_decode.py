import math

import numpy as np
import pytest

from engine.contract import Contract, Feature
from engine.decode import Decoder

CONTRACT = Contract(
    features=(
        Feature("amount", required=True),
        Feature("product", "category", required=True, vocabulary=("C", "W")),
        Feature("hour", "derived", source="time", derivation="hour_of_day"),
        Feature("day", "derived", source="time", derivation="day_of_week", required=True),
        Feature("distance"),
        Feature("device", "category", vocabulary=("mobile",)),
    ),
    id_field="id",
)
GOOD = b'{"id":7,"amount":12.5,"product":"W","time":90000,"distance":3,"device":"mobile"}'


def decode(*values: bytes | None) -> tuple[list[list[float]], list[tuple[int, str, str | None]]]:
    decoded = Decoder(CONTRACT, capacity=1).decode(values)
    assert decoded.matrix.dtype == np.float32
    assert len(decoded.ids) == len(decoded.indices) == len(decoded.matrix)
    return decoded.matrix.tolist(), [(r.index, r.reason, r.field) for r in decoded.rejections]


def test_a_record_becomes_the_row_of_the_contract() -> None:
    assert decode(GOOD) == ([[12.5, 1.0, 1.0, 1.0, 3.0, 0.0]], [])


def test_optional_fields_may_be_absent_null_or_unseen() -> None:
    rows, rejections = decode(
        b'{"id":"a","amount":1,"product":"C","time":0}',
        b'{"id":"b","amount":1,"product":"unseen","time":0,"distance":null,"device":null,"more":[1]}',
    )
    assert rejections == []
    np.testing.assert_array_equal(rows[0], [1, 0, 0, 0, math.nan, math.nan])
    np.testing.assert_array_equal(rows[1], [1, math.nan, 0, 0, math.nan, math.nan])


def test_numbers_round_once_from_their_double_to_float32() -> None:
    rows, _ = decode(b'{"id":1,"amount":0.1,"product":"C","time":0,"distance":16777217}')
    assert rows[0][0] == float(np.float32(0.1))
    assert rows[0][4] == 16777216.0


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "empty_record", None),
        (b"", "empty_record", None),
        (b"{", "invalid_json", None),
        (b'{"id":\xff}', "invalid_json", None),
        (b'{"id":1}{"id":2}', "invalid_json", None),
        (b'{"id":1,"amount":NaN}', "invalid_json", None),
        (b"[1]", "not_an_object", None),
        (b"null", "not_an_object", None),
        (b'{"amount":1,"product":"C","time":0}', "missing_field", "id"),
        (b'{"id":1.5,"amount":1,"product":"C","time":0}', "wrong_type", "id"),
        (b'{"id":true,"amount":1,"product":"C","time":0}', "wrong_type", "id"),
        (b'{"id":1,"product":"C","time":0}', "missing_field", "amount"),
        (b'{"id":1,"amount":null,"product":"C","time":0}', "missing_field", "amount"),
        (b'{"id":1,"amount":1,"time":0}', "missing_field", "product"),
        (b'{"id":1,"amount":1,"product":"C"}', "missing_field", "time"),
        (b'{"id":1,"amount":"12","product":"C","time":0}', "wrong_type", "amount"),
        (b'{"id":1,"amount":true,"product":"C","time":0}', "wrong_type", "amount"),
        (b'{"id":1,"amount":1,"product":3,"time":0}', "wrong_type", "product"),
        (b'{"id":1,"amount":1,"product":["C"],"time":0}', "wrong_type", "product"),
        (b'{"id":1,"amount":1,"product":"C","time":"noon"}', "wrong_type", "time"),
        (b'{"id":1,"amount":1e39,"product":"C","time":0}', "out_of_range", "amount"),
        (b'{"id":1,"amount":1,"product":"C","time":0,"distance":-1e39}', "out_of_range", "distance"),
        (b'{"id":1,"amount":1,"product":"C","time":1e39}', "out_of_range", "time"),
    ],
)
def test_a_bad_record_is_rejected_and_its_neighbours_are_scored(
    value: bytes | None,
    reason: str,
    field: str | None,
) -> None:
    alone, _ = decode(GOOD)
    assert decode(GOOD, value, GOOD) == (alone * 2, [(1, reason, field)])


@pytest.mark.parametrize("field", ["amount", "time"])
def test_the_range_is_that_of_rounding_to_float32(field: str) -> None:
    record = '{"id":1,"amount":1,"time":1,"product":"C","%s":%r}'
    first_too_large = 2.0**128 - 2.0**103
    assert decode((record % (field, math.nextafter(first_too_large, 0))).encode())[1] == []
    assert decode((record % (field, -first_too_large)).encode())[1] == [(0, "out_of_range", field)]


def test_indices_and_rejections_cover_the_batch_in_order() -> None:
    bad = b'{"id":3,"amount":1e39,"product":"C","time":0}'
    decoded = Decoder(CONTRACT, capacity=1).decode([bad, GOOD, b"x", GOOD, bad])
    assert decoded.indices == [1, 3]
    assert [r.index for r in decoded.rejections] == [0, 2, 4]


def test_an_empty_batch_is_an_empty_matrix() -> None:
    assert Decoder(CONTRACT).decode([]).matrix.shape == (0, 6)
