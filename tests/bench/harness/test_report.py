"""The page stands alone, and shows what the results say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saker.bench.harness import results
from saker.bench.harness.contenders import BenchFailed
from saker.bench.harness.e2e import Run, histogram_of
from saker.bench.harness.report import page
from saker.bench.peers.compare import Compared

STAGES = {"wait": 0.5, "decode": 0.1, "score": 0.1, "encode": 0.1, "produce": 0.1, "acknowledge": 0.6}


def run(name: str, rate: float, ms: float) -> Run:
    histogram = histogram_of(np.random.default_rng(0).exponential(ms / 1000, 5_000)).encode().decode()
    return Run(
        contender=name, rate=rate, seconds=1, arrivals="poisson", workers=1, sent=int(rate), lost=0, duplicates=2, checked=100,
        wrong=0, late_ms=1, records_per_s=rate, percentiles_ms={"50": ms, "90": ms, "99": 4 * ms, "99.9": 9 * ms},
        max_ms=12 * ms,
        mean_ms=ms, cpu_us=3.5, peak_mb=88, stages_ms=STAGES if name == "saker" else {}, histogram=histogram,
    )  # fmt: skip


def test_the_page_needs_no_network_and_names_every_contender(tmp_path: Path) -> None:
    e2e, peers = tmp_path / "e2e.json", tmp_path / "peers.json"
    runs = [run(name, rate, ms) for rate in (2_000, 50_000) for name, ms in (("baseline", 1.5), ("saker", 1.6))]
    results.write(e2e, "e2e", runs)
    compared = Compared([], [*runs, run("<b>Other", 2_000, 30)], {"Gone": "cannot be installed any more"})
    compared.rows = [
        {"name": "saker", "about": "saker serve", "highest": 3, "common": 1, "half": None},
        {"name": "<b>Other", "about": "", "highest": None, "common": 4, "half": None},
    ]
    results.write(peers, "peers", compared.runs, peers=compared.rows, missing=compared.missing)
    text = page([e2e, peers])
    assert text.count("<svg") == text.count("</svg>") == 4 + 3
    assert not re.search(r"(?:src|href)=[\"']https?:", text)
    assert "<script" not in text
    for said in ("50,000", "6.40", "cannot be installed any more", "&lt;b&gt;Other", "acknowledge", "saker serve"):
        assert said in text
    assert "<b>Other" not in text
    table = "\n".join(compared.table())
    assert "| saker | 50,000 | 1.6 / 6.4 / 14.4 | 3.5 | 88 | - | - | 0, 2, 0 |" in table
    assert "| <b>Other | none |" in table


def test_void_runs_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "e2e.json"
    results.write(path, "e2e", [run("saker", 2_000, 1), replace(run("baseline", 2_000, 1), late_ms=5_000)])
    assert "baseline</td>" not in page([path])


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"runs": [{"a": 1}]}')
    with pytest.raises(BenchFailed, match="expected a result of `saker bench e2e`"):
        page([path])
