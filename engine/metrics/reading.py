"""Read /metrics back: values by name and labels, increases between two readings, quantiles of histograms."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from saker.engine.errors import SakerError

Labels = tuple[tuple[str, str], ...]


class Unreachable(SakerError):
    """Nobody answers at the address of the metrics."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Values by name and labels, at a time (monotonic seconds)."""

    at: float
    values: Mapping[tuple[str, Labels], float] = field(default_factory=dict)

    def of(self, name: str) -> dict[Labels, float]:
        return {labels: value for (found, labels), value in self.values.items() if found == name}

    def sum(self, name: str, **labels: str) -> float:
        """Of all series of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for found, value in self.of(name).items() if wanted <= set(found))

    def since(self, before: Reading) -> Reading:
        """What each value gained. A counter that fell was started again: it gained all that it has."""
        gained = {
            key: value - (old if (old := before.values.get(key, 0)) <= value else 0) for key, value in self.values.items()
        }
        return Reading(self.at - before.at, gained)

    def mean(self, name: str, **labels: str) -> float:
        """Of a histogram; 0 where nothing was counted."""
        return self.sum(f"{name}_sum", **labels) / max(self.sum(f"{name}_count", **labels), 1)

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Of a histogram, as Prometheus computes it: linear within a bucket; None where nothing was counted."""
        wanted = set(labels.items())
        buckets = sorted(
            (float(dict(found)["le"]), count) for found, count in self.of(f"{name}_bucket").items() if wanted <= set(found)
        )
        if not buckets or not buckets[-1][1]:
            return None
        rank = share * buckets[-1][1]
        low, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= rank:
                inside = count - below
                return low if bound == float("inf") else low + (bound - low) * ((rank - below) / inside if inside else 1)
            low, below = bound, count
        return low


def read(url: str) -> Reading:
    """What /metrics at `url` has now; raises `Unreachable`."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the user gives the URL
            text = answer.read().decode()
    except (OSError, ValueError) as error:
        raise Unreachable(f"no metrics at {url} ({error}): is `saker serve` running, and on this --metrics-port?") from error
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return Reading(time.monotonic(), {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples})
