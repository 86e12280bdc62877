from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest

import saker
from saker.engine.contract import Golden, read_contract
from saker.engine.errors import ModelRefused, ServingError
from saker.engine.kernels import native
from saker.engine.kernels.errors import Refused
from saker.engine.model.native_trees import NativeTrees
from saker.engine.model.session import Session


@pytest.fixture(scope="module")
def booster() -> Any:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 3)).astype(np.float32)
    dataset = lightgbm.Dataset(x, x[:, 0] + x[:, 1] > 0, feature_name=["a", "b", "c"])
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, dataset, 5)


def model(booster: Any, **changes: Any) -> bytes:
    data: bytes = saker.to_onnx(booster, replace(saker.contract_for(booster), **changes)).SerializeToString()
    return data


def test_it_scores_rows_of_float32_in_float64(booster: Any) -> None:
    session = saker.open_session(model(booster))
    x = np.array([[0, 1, 2], [np.nan, np.nan, np.nan]], np.float32)
    scores = session.score(x)
    assert scores.dtype == np.float64
    assert scores.shape == (2,)
    np.testing.assert_allclose(scores, booster.predict(x), atol=1e-12)
    assert session.score(x[:0]).shape == (0,)


def test_a_golden_record_with_another_score_refuses_the_model(booster: Any) -> None:
    golden = saker.contract_for(booster).golden
    wrong = replace(golden[3], score=golden[3].score + 1e-6)
    with pytest.raises(ModelRefused, match="golden record 3 must score"):
        saker.open_session(model(booster, golden=(*golden[:3], wrong, *golden[4:])))


def test_a_golden_record_with_another_row_refuses_the_model(booster: Any) -> None:
    golden = saker.contract_for(booster).golden
    wrong = replace(golden[0], row=(9.0, *golden[0].row[1:]))
    with pytest.raises(ModelRefused, match="decode to other rows"):
        saker.open_session(model(booster, golden=(wrong, *golden[1:])))


def test_a_golden_record_that_is_rejected_refuses_the_model(booster: Any) -> None:
    with pytest.raises(ModelRefused, match="golden record 0 is rejected by its own contract: field 'a'"):
        saker.open_session(
            model(booster, golden=(Golden('{"TransactionID":1,"a":"x"}', (0.0, 0.0, 0.0), 0.5),)),
        )


def test_a_model_without_golden_records_is_refused(booster: Any) -> None:
    with pytest.raises(ModelRefused, match="no golden records"):
        saker.open_session(model(booster, golden=()))


def test_bytes_that_onnxruntime_cannot_load_are_refused(booster: Any) -> None:
    data = model(booster).replace(b"TreeEnsemble", b"TreeEnsembla")
    with pytest.raises(ModelRefused, match="cannot load"):
        saker.open_session(data)


def test_a_graph_that_the_native_trees_do_not_take_is_scored_by_onnxruntime(booster: Any) -> None:
    graph = onnx.load_from_string(model(booster))
    last = next(node for node in graph.graph.node if "score" in node.output)
    last.output[list(last.output).index("score")] = "before"
    graph.graph.node.append(onnx.helper.make_node("Max", ["before", "before"], ["score"]))
    session = saker.open_session(graph.SerializeToString())
    assert session.backend == "onnxruntime"
    assert session.backend_reason.endswith("Max behind the trees is not an operator that is known here")


def test_native_trees_that_come_out_otherwise_than_onnxruntime_are_refused(booster: Any) -> None:
    data = model(booster)
    session = Session(data, read_contract(data), "off")
    extension, _ = native("auto")
    assert extension

    def ask(change: float) -> Any:
        def answer(names: list[str], x: Any) -> list[Any]:
            raw = booster.predict(x, raw_score=True)[:, None]
            raw[17] *= 1 + change
            return [{"score": session.score(x), "raw": raw}[name] for name in names]

        return answer

    assert NativeTrees(extension, data, "score", None, ask(0.0)).variant == extension.variants()[0]
    with pytest.raises(Refused, match="1 of 64 rows come out otherwise than by onnxruntime"):
        NativeTrees(extension, data, "score", None, ask(3e-16))


def test_kernels_are_chosen_by_word_or_environment(booster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = model(booster)
    monkeypatch.setenv("SAKER_KERNELS", "off")
    assert saker.open_session(data).backend == "onnxruntime"
    assert saker.open_session(data, "auto").backend != "onnxruntime"
    monkeypatch.setenv("SAKER_KERNELS", "fast")
    with pytest.raises(ServingError, match="SAKER_KERNELS: expected auto or off, got 'fast'"):
        saker.open_session(data)


def test_without_the_extension_it_says_so(booster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "saker.engine.kernels._native", None)  # as an import of what is not there
    session = saker.open_session(model(booster))
    assert session.backend == "onnxruntime"
    assert session.backend_reason.startswith("the native kernels are not installed")
