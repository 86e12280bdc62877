"""Model files as they come: of other systems, cut, edited, hostile. LightGBM itself would end the process on some of them."""

from __future__ import annotations

import re
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saker.export.errors import BrokenModel, ExportError
from saker.export.readers.lightgbm_file import checked_text, open_model, open_model_file
from tests.support.examples import examples

ROWS = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
BOOSTER = lightgbm.train(
    {"objective": "binary", "verbose": -1, "min_data_in_leaf": 5, "num_leaves": 6},
    lightgbm.Dataset(ROWS, (ROWS[:, 0] > 0).astype(int), feature_name=["amount", "âge", "n"]),
    12,
)
TEXT = BOOSTER.model_to_string()
WITHOUT_SIZES = re.sub("tree_sizes=.*\n", "", TEXT)


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("latin-1"),
        WITHOUT_SIZES.encode(),
        TEXT.replace("[boosting", "[boosting_of_another_release: 1]\n[boosting", 1).encode(),
    ],
    ids=["as written", "CRLF", "byte order mark", "Latin-1", "without sizes", "a parameter that nobody knows"],
)
def test_files_of_other_systems_are_read_as_what_they_were(data: bytes) -> None:
    booster = open_model(data, "m.txt")
    assert booster.feature_name() == BOOSTER.feature_name()
    np.testing.assert_array_equal(booster.predict(ROWS), BOOSTER.predict(ROWS))


def test_nothing_goes_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """`saker models describe old.txt > features.toml`: LightGBM warns of parameters of other releases there."""
    open_model(TEXT.replace("[boosting", "[max_conflict_rate: 0]\n[boosting", 1).encode(), "m.txt").predict(ROWS)
    assert capfd.readouterr().out == ""


def test_a_line_separator_in_a_name_is_a_part_of_it() -> None:
    assert open_model(WITHOUT_SIZES.replace("amount", "am\u2028ount").encode(), "m.txt").feature_name()[0] == "am\u2028ount"


def cut_before(text: str, mark: str) -> str:
    return text[: text.index(mark)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "model file"),
        ("amount,n\n1,2\n", "model file"),
        (TEXT[: len(TEXT) // 2], "model text"),
        (cut_before(TEXT, "end of trees"), "model text"),
        (cut_before(WITHOUT_SIZES, "Tree=6"), "model text"),
        (cut_before(TEXT, "[boosting"), "parameters"),
        (cut_before(TEXT, "Tree=6") + "Tree=7" + TEXT.partition("Tree=7")[2], "trees"),
        (cut_before(WITHOUT_SIZES, "Tree=6") + "Tree=7" + TEXT.partition("Tree=7")[2], "trees"),
        (cut_before(TEXT, "Tree=11") + "end of trees" + TEXT.partition("end of trees")[2], "tree_sizes"),
        (TEXT.replace("shrinkage=1", "shrinkage=1.0", 1), "tree_sizes"),
        (TEXT.replace("pandas_categorical:null", 'pandas_categorical:[[nan, "a"'), "pandas_categorical"),
        (TEXT.replace("num_class=1", "num_class=0"), "trees"),
        (TEXT.replace("num_tree_per_iteration=1", "num_tree_per_iteration=0"), "trees"),
        (TEXT.replace("max_feature_idx=2", "max_feature_idx=2000000000"), "feature names"),
        (TEXT.replace("max_feature_idx=2", "max_feature_idx=many"), "model text"),
        (re.sub("feature_infos=.*\n", "feature_infos=none\n", WITHOUT_SIZES), "feature_infos"),
        (WITHOUT_SIZES.replace("left_child=1", "left_child=999999", 1), "children"),
        (WITHOUT_SIZES.replace("split_feature=", "split_feature=-7 ", 1), "split_feature of tree 0"),
        # what LightGBM alone can tell
        (TEXT.replace("[boosting: gbdt]", "[boosting: gbdt]\n[ignore_column: [nam]]"), "model file"),
        (TEXT.replace("objective=binary", "objective=bynary"), "model file"),
    ],
)
def test_a_damaged_file_is_refused_by_name(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(text.encode())
    with pytest.raises(BrokenModel, match=re.escape(f"{what}: {path}: ")) as caught:
        open_model_file(path)
    assert caught.value.what == what


def test_a_process_that_lightgbm_ends_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dies = "import os, signal, lightgbm\nlightgbm.Booster = lambda **_: os.kill(os.getpid(), signal.SIGABRT)\n"
    (tmp_path / "sitecustomize.py").write_text(dies)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BrokenModel, match=r"m.txt: LightGBM .* cannot read it: its process ended with -6"):
        open_model(TEXT.encode(), "m.txt")


@settings(max_examples=examples(400), deadline=None)
@given(st.integers(0, len(TEXT.encode()) - 1))
def test_wherever_a_file_is_cut_no_tree_is_lost(at: int) -> None:
    cut = TEXT.encode()[:at]
    try:
        text = checked_text(cut)
    except BrokenModel:
        return
    assert text.partition("\nend of trees")[0] == TEXT.partition("\nend of trees")[0]
    assert "\nend of parameters" in text or "\nparameters" not in text


def changed(data: bytes, change: tuple[int, bytes]) -> bytes:
    at, new = change
    return data[:at] + new + data[at + len(new) :]


@settings(max_examples=examples(1000), deadline=None)
@given(
    st.sampled_from([TEXT.encode(), WITHOUT_SIZES.encode()]),
    st.lists(st.tuples(st.integers(0, len(WITHOUT_SIZES) - 1), st.binary(min_size=1, max_size=3)), min_size=1, max_size=4),
)
def test_whatever_is_changed_is_read_or_refused(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    for change in changes:
        data = changed(data, change)
    try:
        text = checked_text(data)
    except ExportError:
        return
    assert text.startswith("tree\n")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenModel, match="no such file"):
        open_model_file(tmp_path / "absent.txt")
