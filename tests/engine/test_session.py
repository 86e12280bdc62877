from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest

import engine
import export
from engine.contract import Golden
from engine.errors import ModelRefused


@pytest.fixture(scope="module")
def booster() -> Any:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 3)).astype(np.float32)
    dataset = lightgbm.Dataset(x, x[:, 0] + x[:, 1] > 0, feature_name=["a", "b", "c"])
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, dataset, 5)


def model(booster: Any, **changes: Any) -> bytes:
    data: bytes = export.to_onnx(booster, replace(export.contract_for(booster), **changes)).SerializeToString()
    return data


def test_it_scores_rows_of_float32_in_float64(booster: Any) -> None:
    session = engine.open_session(model(booster))
    x = np.array([[0, 1, 2], [np.nan, np.nan, np.nan]], np.float32)
    scores = session.score(x)
    assert scores.dtype == np.float64
    assert scores.shape == (2,)
    np.testing.assert_allclose(scores, booster.predict(x), atol=1e-12)
    assert session.score(x[:0]).shape == (0,)


def test_a_golden_record_with_another_score_refuses_the_model(booster: Any) -> None:
    golden = export.contract_for(booster).golden
    wrong = replace(golden[3], score=golden[3].score + 1e-6)
    with pytest.raises(ModelRefused, match="golden record 3 must score"):
        engine.open_session(model(booster, golden=(*golden[:3], wrong, *golden[4:])))


def test_a_golden_record_with_another_row_refuses_the_model(booster: Any) -> None:
    golden = export.contract_for(booster).golden
    wrong = replace(golden[0], row=(9.0, *golden[0].row[1:]))
    with pytest.raises(ModelRefused, match="decode to other rows"):
        engine.open_session(model(booster, golden=(wrong, *golden[1:])))


def test_a_golden_record_that_is_rejected_refuses_the_model(booster: Any) -> None:
    with pytest.raises(ModelRefused, match="golden record 0 is rejected by its own contract: field 'a'"):
        engine.open_session(
            model(booster, golden=(Golden('{"TransactionID":1,"a":"x"}', (0.0, 0.0, 0.0), 0.5),)),
        )


def test_a_model_without_golden_records_is_refused(booster: Any) -> None:
    with pytest.raises(ModelRefused, match="no golden records"):
        engine.open_session(model(booster, golden=()))


def test_bytes_that_onnxruntime_cannot_load_are_refused(booster: Any) -> None:
    data = model(booster).replace(b"TreeEnsemble", b"TreeEnsembla")
    with pytest.raises(ModelRefused, match="cannot load"):
        engine.open_session(data)
