"""The benchmark page is what the results say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from saker.bench.harness import results
from saker.bench.page import IMAGES, PAGE, ROOT, page

RESULTS = ROOT / results.FOLDER


def test_the_page_and_its_charts_are_made_of_the_results() -> None:
    text, images = page(RESULTS)
    assert PAGE.read_text() == text, "run `make generated`"
    for name, image in images.items():
        assert (IMAGES / name).read_text() == image, "run `make generated`"


def test_results_of_two_machines_do_not_make_a_page(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    other = json.loads((tmp_path / "rows.json").read_text())
    other["machine"]["processor"] = "another"
    (tmp_path / "rows.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="expected one machine"):
        page(tmp_path)
