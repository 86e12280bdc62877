"""The file that `saker bench trees|rows|pipeline` gives to pytest; see bench/micro/runner.py."""

from __future__ import annotations

from typing import Any

import pytest

from saker.bench.micro.runner import Case, asked, one_core


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = list(asked())
    metafunc.parametrize("case", cases, ids=[f"{case.group}: {case.who}" for case in cases])


def test_time(benchmark: Any, case: Case) -> None:
    one_core()
    benchmark.group = case.group
    benchmark.extra_info = {"who": case.who, "records": case.records, "stages_us": case.stages_us}
    benchmark(case.call)
