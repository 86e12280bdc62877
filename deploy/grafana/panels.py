"""The dashboards as data. `saker.deploy.grafana.build` writes them as JSON for Grafana.

Grafana replaces `$__rate_interval` by at least four scrape intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


class Query(NamedTuple):
    """legend: Grafana's, with {{label}}."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """unit: Grafana's id of it. width: of 24. stat: the number now. series: lines. heatmap: buckets by time."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: Literal["stat", "series", "heatmap", "bars"] = "series"
    width: int = 8


class Dashboard(NamedTuple):
    uid: str
    title: str
    description: str
    panels: Sequence[Panel]


def _quantile(share: float, by: str, name: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate({name}_bucket[$__rate_interval])))"


_LATENCY_MS = [Query(f"1000 * {_quantile(q, 'le', 'scoring_latency_seconds')}", f"p{100 * q:g}") for q in (0.5, 0.99, 0.999)]
_FAILED = "sum(rate(failed_transactions_total[$__rate_interval]) or vector(0))"
_ALL = f"(sum(rate(scored_transactions_total[$__rate_interval])) + {_FAILED} > 0)"

FRAUD_SCORING = Dashboard(
    "saker-fraud-scoring",
    "Fraud scoring",
    "Throughput, latency, rejections and flagged transactions of all pools.",
    [
        Panel(
            "Total scored",
            "Scores that Kafka acknowledged in the selected time range.",
            "short",
            [Query("sum(increase(scored_transactions_total[$__range]))")],
            "stat",
            4,
        ),
        Panel(
            "Rejected",
            "Transactions that were rejected in the selected time range; they are in rejected-transactions with their reason.",
            "short",
            [Query("sum(increase(failed_transactions_total[$__range]) or vector(0))")],
            "stat",
            4,
        ),
        Panel(
            "Error rate",
            "Share of transactions that were rejected.",
            "percentunit",
            [Query(f"{_FAILED} / {_ALL}")],
            "stat",
            4,
        ),
        Panel(
            "Latency p99",
            "Time from a record's timestamp to its acknowledged score, 99th percentile.",
            "ms",
            [Query(_LATENCY_MS[1].expr)],
            "stat",
            4,
        ),
        Panel(
            "Flagged as fraud",
            "Share of scores at or above the threshold of the model.",
            "percentunit",
            [
                Query(
                    "sum(rate(flagged_transactions_total[$__rate_interval])) "
                    "/ (sum(rate(scored_transactions_total[$__rate_interval])) > 0)"
                )
            ],
            "stat",
            4,
        ),
        Panel(
            "Model",
            "Name and version of the model in use.",
            "none",
            [Query("max by (name, version) (model_info)", "{{name}}/{{version}}")],
            "stat",
            4,
        ),
        Panel(
            "Throughput",
            "Scored, rejected and skipped transactions per second.",
            "reqps",
            [
                Query("sum(rate(scored_transactions_total[$__rate_interval]))", "scored"),
                Query("sum by (reason) (rate(failed_transactions_total[$__rate_interval]))", "{{reason}}"),
                Query("sum by (reason) (rate(skipped_transactions_total[$__rate_interval]))", "{{reason}} (skipped)"),
            ],
            width=12,
        ),
        Panel(
            "Latency",
            "Time from a record's timestamp to its acknowledged score: median, 99th and 99.9th percentile.",
            "ms",
            _LATENCY_MS,
            width=12,
        ),
        Panel(
            "Latency distribution",
            "Number of records by time from their timestamp to their acknowledged score.",
            "s",
            [Query("sum by (le) (increase(scoring_latency_seconds_bucket[$__rate_interval]))", "{{le}}")],
            "heatmap",
            12,
        ),
        Panel(
            "Daily predictions",
            "Scores in the preceding 24 hours.",
            "short",
            [Query("sum(increase(scored_transactions_total[1d]))", "scored in 24 h")],
            "bars",
            12,
        ),
        Panel(
            "Share flagged as fraud",
            "Share of the last 15 minutes and of the last day. A jump means new fraud, a new model or a broken field.",
            "percentunit",
            [
                Query("saker:flagged_share:ratio_rate15m", "15 minutes"),
                Query("saker:flagged_share:ratio_rate1d", "1 day"),
            ],
            width=12,
        ),
        Panel(
            "Score distribution",
            "Number of records by score.",
            "none",
            [Query("sum by (le) (increase(fraud_score_bucket[$__rate_interval]))", "{{le}}")],
            "heatmap",
            12,
        ),
    ],
)

ENGINE = Dashboard(
    "saker-engine",
    "Engine",
    "Stages, lag, workers and resources of all pools.",
    [
        Panel(
            "Stage latency, p99",
            "Time that a batch spends in each stage, 99th percentile.",
            "s",
            [Query(_quantile(0.99, "le, stage", "stage_latency_seconds"), "{{stage}}")],
            width=12,
        ),
        Panel(
            "Stage latency, mean",
            "Time that a batch spends in each stage, mean.",
            "s",
            [
                Query(
                    "sum by (stage) (rate(stage_latency_seconds_sum[$__rate_interval])) "
                    "/ (sum by (stage) (rate(stage_latency_seconds_count[$__rate_interval])) > 0)",
                    "{{stage}}",
                )
            ],
            width=12,
        ),
        Panel(
            "Batch size",
            "Records per batch. A worker takes all records that have arrived, so batches grow with the load.",
            "short",
            [
                Query(_quantile(0.5, "le", "batch_records"), "p50"),
                Query(_quantile(0.99, "le", "batch_records"), "p99"),
            ],
        ),
        Panel(
            "Lag by partition",
            "Records of the input topic that the group has not committed.",
            "short",
            [Query("max by (topic, partition) (consumer_lag_records)", "{{topic}} {{partition}}")],
        ),
        Panel(
            "Records in flight",
            "Results that Kafka has not acknowledged yet.",
            "short",
            [Query("sum by (instance) (in_flight_records)", "{{instance}}")],
        ),
        Panel(
            "Worker restarts",
            "Workers that were restarted after they died.",
            "short",
            [Query("sum by (instance, worker) (increase(worker_restarts_total[$__rate_interval]))", "{{instance}} {{worker}}")],
        ),
        Panel(
            "Shadow scoring",
            "Results of the second model: same decision, different decision, no score, or skipped for lack of CPU.",
            "short",
            [Query("sum by (result) (increase(shadow_transactions_total[$__rate_interval]))", "{{result}}")],
        ),
        Panel(
            "Late records",
            "Records that were older than --late-ms on arrival; they are scored and marked.",
            "short",
            [Query("sum by (instance) (increase(late_transactions_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Records without any model field",
            "Records that were scored as if every value were missing, since none of their fields belongs to the model.",
            "short",
            [Query("sum by (instance) (increase(blank_transactions_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Deleted before scoring",
            "Records that retention or a deleted topic removed before they were scored.",
            "short",
            [Query("sum by (instance) (increase(deleted_records_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Unread partitions",
            "Partitions of the input without a reader, or that the output topics lack.",
            "short",
            [Query("max by (instance) (unread_partitions)", "{{instance}}")],
        ),
        Panel(
            "Waiting for a schema",
            "Partitions that wait for the schema registry.",
            "short",
            [Query("max by (instance) (schema_waiting_partitions)", "{{instance}}")],
        ),
        Panel(
            "Kafka reachable",
            "1 if a broker answers, 0 if none does.",
            "short",
            [Query("min by (instance) (broker_up)", "{{instance}}")],
        ),
        Panel(
            "Rebalances",
            "Partition assignments that workers received from the group coordinator.",
            "short",
            [Query("sum by (instance) (increase(rebalances_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Workers by code path",
            "Native kernels (avx512, avx2, baseline, native) or reference paths (onnxruntime, reference, public).",
            "short",
            [Query("sum by (trees, rows, kafka) (workers_ready)", "trees {{trees}}, rows {{rows}}, kafka {{kafka}}")],
        ),
        Panel(
            "CPU",
            "CPU of each process, in cores.",
            "short",
            [Query("sum by (instance, worker) (rate(worker_cpu_seconds_total[$__rate_interval]))", "{{instance}} {{worker}}")],
            width=12,
        ),
        Panel(
            "Memory",
            "Resident memory of each process.",
            "bytes",
            [Query("sum by (instance, worker) (worker_resident_memory_bytes)", "{{instance}} {{worker}}")],
            width=12,
        ),
    ],
)

MODEL = Dashboard(
    "saker-model",
    "Model",
    "Drift and live quality of the model, exported by `saker monitor`.",
    [
        Panel(
            "Drift of the score",
            "Population stability index (PSI) against the training data. Investigate above 0.1, act above 0.25.",
            "none",
            [Query('max(drift_psi{feature="score"})', "score")],
            "stat",
            6,
        ),
        Panel(
            "Records compared",
            "Number of live records behind the drift figures.",
            "short",
            [Query("max(drift_records)", "records")],
            "stat",
            6,
        ),
        Panel(
            "Labelled records",
            "Scored records whose label is known.",
            "short",
            [Query("max(live_labelled_records)", "labelled")],
            "stat",
            6,
        ),
        Panel(
            "Last evaluation",
            "Time since the last evaluation by the monitor.",
            "s",
            [Query("time() - max(monitor_last_success_timestamp_seconds)", "ago")],
            "stat",
            6,
        ),
        Panel(
            "Drift of the features",
            "The ten features with the highest drift (PSI).",
            "none",
            [Query("topk(10, max by (feature) (drift_psi))", "{{feature}}")],
            width=12,
        ),
        Panel(
            "Champion and challenger",
            "ROC AUC on the labelled live records.",
            "none",
            [Query("max by (alias) (live_roc_auc)", "{{alias}}")],
            width=12,
        ),
        Panel(
            "Live precision",
            "Share of flagged records that were fraud.",
            "percentunit",
            [Query("max by (alias) (live_precision)", "{{alias}}")],
        ),
        Panel(
            "Live recall",
            "Share of fraud that was flagged.",
            "percentunit",
            [Query("max by (alias) (live_recall)", "{{alias}}")],
        ),
        Panel(
            "Model loads",
            "Attempts to load a new model. After a rejected one, the previous model keeps scoring.",
            "short",
            [Query("sum by (result) (increase(model_loads_total[$__rate_interval]))", "{{result}}")],
        ),
        Panel(
            "Champion in the registry",
            "1 if the registry has the model that pools follow, 0 if not.",
            "short",
            [Query("min(model_found)", "found")],
            width=24,
        ),
    ],
)

VELOCITY = Dashboard(
    "saker-velocity",
    "Velocity features",
    "Histories of cards, accounts and devices: size, completeness, snapshots and recovery.",
    [
        Panel(
            "Keys",
            "Keys (cards, accounts, devices) that have a history.",
            "short",
            [Query("sum by (instance) (history_keys)", "{{instance}}")],
        ),
        Panel(
            "Memory of the histories",
            "The limit of each partition is `--state-mb`.",
            "bytes",
            [Query("sum by (instance) (history_bytes)", "{{instance}}")],
        ),
        Panel(
            "Dropped keys",
            "Keys dropped at the limit; `open`: their window had not passed, so their features are wrong from then on.",
            "short",
            [Query("sum by (window) (increase(history_evicted_keys_total[$__rate_interval]))", "window {{window}}")],
        ),
        Panel(
            "Incomplete records",
            "Records whose window reaches back to before the history of their partition.",
            "short",
            [Query("sum by (instance) (increase(history_incomplete_records_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Records without a usable time",
            "Event time missing, or over an hour in the future; they have no velocity features.",
            "short",
            [Query("sum by (instance) (increase(history_untimed_records_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Age of the snapshots",
            "Time since the oldest of the partitions' last snapshots: a restart replays that much.",
            "s",
            [Query("time() - min by (instance) (history_snapshot_timestamp_seconds)", "{{instance}}")],
        ),
        Panel(
            "Duration of a snapshot",
            "From its beginning until it is on the disk and its offset is committed.",
            "s",
            [Query("max by (instance) (history_snapshot_seconds)", "{{instance}}")],
        ),
        Panel(
            "Failed snapshots",
            "Snapshots that could not be written.",
            "short",
            [Query("sum by (instance) (increase(history_snapshot_failures_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Replayed records",
            "Records per second that are read again to recover histories.",
            "short",
            [Query("sum by (instance) (rate(history_replayed_records_total[$__rate_interval]))", "{{instance}}")],
            width=12,
        ),
        Panel(
            "Partitions in recovery",
            "Partitions whose history is being replayed; the pool is not ready meanwhile.",
            "short",
            [Query("sum by (instance) (history_replaying_partitions)", "{{instance}}")],
            width=12,
        ),
    ],
)

DASHBOARDS = (FRAUD_SCORING, ENGINE, MODEL, VELOCITY)
