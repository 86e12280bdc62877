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
    "scored_transactions": Declared("counter", "Scores that Kafka acknowledged or, with exactly once, committed."),
    "flagged_transactions": Declared("counter", "Acknowledged scores at or above the threshold of the model (`is_fraud`)."),
    "failed_transactions": Declared("counter", "Rejected records that Kafka acknowledged.", ("reason",)),
    "skipped_transactions": Declared("counter", "Tombstones and deleted rows that were skipped.", ("reason",)),
    "shadow_transactions": Declared("counter", "Records by the result of shadow scoring.", ("result",)),
    "late_transactions": Declared("counter", "Records that were older than `--late-ms` on arrival; they are scored."),
    "blank_transactions": Declared("counter", "Records that were scored without any field of the model."),
    "deleted_records": Declared("counter", "Records that were deleted before they were scored."),
    "fraud_score": Declared("histogram", "Acknowledged scores, from 0 to 1."),
    "scoring_latency_seconds": Declared("histogram", "Time from the timestamp of a record to its acknowledged score."),
    "stage_latency_seconds": Declared("histogram", "Time that a batch spends in a stage.", ("stage",)),
    "batch_records": Declared("histogram", "Records per batch."),
    "in_flight_records": Declared("gauge", "Records whose results Kafka has not acknowledged yet."),
    "consumer_lag_records": Declared("gauge", "Records of the input that the group has not committed.", ("topic", "partition")),
    "unread_partitions": Declared("gauge", "Partitions of the input without a reader, or that the output topics lack."),
    "schema_waiting_partitions": Declared("gauge", "Partitions that wait for the schema registry."),
    "history_keys": Declared("gauge", "Keys (cards, accounts, devices) that velocity features have a history of."),
    "history_bytes": Declared("gauge", "Memory of the histories of velocity features."),
    "history_evicted_keys": Declared(
        "counter", "Keys that were dropped because a partition reached `--state-mb`, by the state of their window.", ("window",)
    ),
    "history_incomplete_records": Declared(
        "counter", "Records whose window reaches back to before the history of their partition."
    ),
    "history_untimed_records": Declared(
        "counter", "Records without velocity features, since their event time is missing or over an hour in the future."
    ),
    "history_replayed_records": Declared("counter", "Records that were read again to recover a history."),
    "history_replaying_partitions": Declared("gauge", "Partitions whose history is being recovered."),
    "history_snapshot_timestamp_seconds": Declared("gauge", "Time of the oldest of the partitions' last snapshots."),
    "history_snapshot_seconds": Declared("gauge", "Duration of the last snapshot; the longest of all workers."),
    "history_snapshot_failures": Declared("counter", "Snapshots that could not be written."),
    "broker_up": Declared("gauge", "1 if a Kafka broker answers, 0 if none does."),
    "rebalances": Declared("counter", "Partition assignments from the group coordinator."),
    "worker_restarts": Declared("counter", "Restarts of workers that died.", ("worker",)),
    "workers_ready": Declared(
        "gauge", "Ready workers by the code path of trees, rows and Kafka calls.", ("trees", "rows", "kafka")
    ),
    "worker_cpu_seconds": Declared("counter", "CPU time (user and system) of a worker or the parent.", ("worker",)),
    "worker_resident_memory_bytes": Declared("gauge", "Resident memory of a worker or the parent.", ("worker",)),
    "model_info": Declared("gauge", "The model in use; always 1.", ("name", "version", "sha256")),
    "model_found": Declared("gauge", "1 if the registry has the model that the pool follows, 0 if not."),
    "model_checked_timestamp_seconds": Declared("gauge", "Time of the last check for a new model, successful or not."),
    "model_loads": Declared("counter", "Attempts to load a new model.", ("result",)),
    "drift_psi": Declared("gauge", "Population stability index (PSI) against the training data.", ("feature",)),
    "drift_records": Declared("gauge", "Records behind the drift figures."),
    "live_labelled_records": Declared("gauge", "Scored records with a known label."),
    "live_precision": Declared("gauge", "Share of flagged records that were fraud.", ("alias",)),
    "live_recall": Declared("gauge", "Share of fraud that was flagged.", ("alias",)),
    "live_roc_auc": Declared("gauge", "ROC AUC on the labelled records.", ("alias",)),
    "monitor_last_success_timestamp_seconds": Declared("gauge", "Time of the last evaluation by the monitor."),
}


def family(name: str, series: Iterable[tuple[Sequence[str], float | Histogram]]) -> Metric:
    """A declared metric. series: label values in the declared order, each with a number or histogram."""
    declared = METRICS[name]
    kind = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}[declared.kind]
    made: Any = kind(name, declared.documentation, labels=declared.labels)
    for labels, value in series:
        made.add_metric(labels, *((value.buckets(), value.total) if isinstance(value, Histogram) else (value,)))
    return made  # type: ignore[no-any-return]
