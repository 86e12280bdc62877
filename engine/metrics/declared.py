"""Every metric, declared once with its kind, documentation and labels.

Dashboards and alerts in `deploy` use these names and no others, which a test checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from saker.engine.metrics.counts import Histogram


class Declared(NamedTuple):
    kind: Literal["counter", "gauge", "histogram"]
    documentation: str
    labels: tuple[str, ...] = ()


#: By name, without the ending that Prometheus gives a counter (`_total`) or a histogram (`_bucket`, `_sum`, `_count`).
METRICS: Mapping[str, Declared] = {
    "scored_transactions": Declared("counter", "Scores that Kafka acknowledged, or committed (exactly once)."),
    "flagged_transactions": Declared("counter", "Acknowledged scores at or above the model's threshold (is_fraud)."),
    "failed_transactions": Declared("counter", "Rejections that Kafka acknowledged.", ("reason",)),
    "shadow_transactions": Declared("counter", "Records that the second model scored too, or could not.", ("result",)),
    "late_transactions": Declared("counter", "Records that were older than --late-ms when they arrived; scored all the same."),
    "blank_transactions": Declared("counter", "Records that were scored though they have none of the model's fields."),
    "deleted_records": Declared("counter", "Records that retention deleted before they were scored."),
    "fraud_score": Declared("histogram", "Acknowledged scores, 0 to 1."),
    "scoring_latency_seconds": Declared("histogram", "From a record's timestamp to its acknowledged score."),
    "stage_latency_seconds": Declared("histogram", "Time that a batch spends in a stage.", ("stage",)),
    "batch_records": Declared("histogram", "Records in a batch."),
    "in_flight_records": Declared("gauge", "Records whose results are produced and not acknowledged yet."),
    "consumer_lag_records": Declared("gauge", "Records that the group has not committed.", ("topic", "partition")),
    "unread_partitions": Declared("gauge", "Partitions of the input that nobody reads, or whose results have none."),
    "broker_up": Declared("gauge", "Whether a Kafka broker answers (1) or none does (0)."),
    "rebalances": Declared("counter", "Assignments that the group's coordinator gave to workers."),
    "worker_restarts": Declared("counter", "Workers started again after they died.", ("worker",)),
    "workers_ready": Declared("gauge", "Workers that score, by what they run on.", ("trees", "rows", "kafka")),
    "worker_cpu_seconds": Declared("counter", "CPU time, user and system, of a worker or of the parent.", ("worker",)),
    "worker_resident_memory_bytes": Declared("gauge", "Resident memory of a worker or of the parent.", ("worker",)),
    "model_info": Declared("gauge", "The model that scores; always 1.", ("name", "version", "sha256")),
    "model_found": Declared("gauge", "Whether the registry has the model that is followed (1), or nothing there (0)."),
    "model_checked_timestamp_seconds": Declared("gauge", "When it was last looked for a newer model, whatever came of it."),
    "model_loads": Declared("counter", "Models that were to be loaded while serving.", ("result",)),
    "drift_psi": Declared("gauge", "Population stability index against the training rows.", ("feature",)),
    "drift_records": Declared("gauge", "Records that the drift was computed of."),
    "live_labelled_records": Declared("gauge", "Scored records whose label is known."),
    "live_precision": Declared("gauge", "Share of the flagged records that were fraud.", ("alias",)),
    "live_recall": Declared("gauge", "Share of the fraud that was flagged.", ("alias",)),
    "live_roc_auc": Declared("gauge", "Area under the ROC curve on the labelled records.", ("alias",)),
    "monitor_last_success_timestamp_seconds": Declared("gauge", "When the monitor last looked."),
}


def family(name: str, series: Iterable[tuple[Sequence[str], float | Histogram]]) -> Metric:
    """A declared metric with the values of its labels, in their order, and of each its number or histogram."""
    declared = METRICS[name]
    kind = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}[declared.kind]
    made: Any = kind(name, declared.documentation, labels=declared.labels)
    for labels, value in series:
        made.add_metric(labels, *((value.buckets(), value.total) if isinstance(value, Histogram) else (value,)))
    return made  # type: ignore[no-any-return]
