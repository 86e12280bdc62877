from __future__ import annotations

import pytest
from rich.console import Console

from saker.commands.top import view
from saker.engine.metrics.reading import Labels, Reading, Unreachable, read

BUCKETS = {"0.001": 10.0, "0.01": 20.0, "0.1": 20.0, "+Inf": 20.0}


def reading(at: float, factor: float) -> Reading:
    latency: dict[tuple[str, Labels], float] = {
        ("scoring_latency_seconds_bucket", (("le", bound),)): count * factor for bound, count in BUCKETS.items()
    }
    return Reading(
        at,
        {
            **latency,
            ("scored_transactions_total", ()): 1000 * factor,
            ("flagged_transactions_total", ()): 10 * factor,
            ("failed_transactions_total", (("reason", "invalid_json"),)): 5 * factor,
            ("model_info", (("name", "fraud"), ("sha256", "0"), ("version", "7"))): 1.0,
            ("worker_cpu_seconds_total", (("worker", "0"),)): 0.5 * factor,
            ("worker_resident_memory_bytes", (("worker", "0"),)): 1e8,
            ("worker_restarts_total", (("worker", "0"),)): 3.0,
        },
    )


def test_quantiles_are_linear_within_a_bucket() -> None:
    found = reading(0, 1)
    assert found.quantile(0.25, "scoring_latency_seconds") == pytest.approx(0.0005)
    assert found.quantile(0.75, "scoring_latency_seconds") == pytest.approx(0.0055)
    assert found.quantile(1, "scoring_latency_seconds") == pytest.approx(0.01)
    assert found.quantile(0.5, "batch_records") is None


def test_a_counter_that_fell_was_started_again() -> None:
    assert reading(3, 3).since(reading(1, 1)).sum("scored_transactions_total") == 2000
    assert reading(3, 1).since(reading(1, 3)).sum("scored_transactions_total") == 1000


def test_a_view_shows_rates_latency_workers_and_model() -> None:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(view(reading(2, 3), reading(2, 3).since(reading(0, 1))))
    text = shown.get()
    for expected in ("fraud/7", "1,000/s", "5.0/s", "1.00%", "p50 1.0 ms", "p99.9 10.0 ms", "worker 0", "50%", "100 MB"):
        assert expected in text


def test_nobody_there_is_said() -> None:
    with pytest.raises(Unreachable, match=r"no metrics at http://127\.0\.0\.1:1/metrics"):
        read("http://127.0.0.1:1/metrics")
