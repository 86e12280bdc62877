"""What the dashboards show: panels as data. `saker.deploy.grafana.build` makes Grafana's JSON of them.

`$__rate_interval` is Grafana's: four scrapes at least.
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
    "What comes in, what goes out, how fast, and by which model.",
    [
        Panel(
            "Total scored",
            "Scores that Kafka acknowledged in the time shown.",
            "short",
            [Query("sum(increase(scored_transactions_total[$__range]))")],
            "stat",
            4,
        ),
        Panel(
            "Failed",
            "Transactions that were rejected in the time shown; they lie in rejected-transactions with their reason.",
            "short",
            [Query("sum(increase(failed_transactions_total[$__range]) or vector(0))")],
            "stat",
            4,
        ),
        Panel(
            "Error rate",
            "Rejected transactions as a share of all.",
            "percentunit",
            [Query(f"{_FAILED} / {_ALL}")],
            "stat",
            4,
        ),
        Panel(
            "Latency p99",
            "From a record's timestamp to its acknowledged score.",
            "ms",
            [Query(_LATENCY_MS[1].expr)],
            "stat",
            4,
        ),
        Panel(
            "Flagged as fraud",
            "Scores at or above the model's threshold, as a share of all scores.",
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
            "Name and version of the model that scores.",
            "none",
            [Query("max by (name, version) (model_info)", "{{name}}/{{version}}")],
            "stat",
            4,
        ),
        Panel(
            "Throughput",
            "Scored and rejected transactions a second.",
            "reqps",
            [
                Query("sum(rate(scored_transactions_total[$__rate_interval]))", "scored"),
                Query("sum by (reason) (rate(failed_transactions_total[$__rate_interval]))", "{{reason}}"),
            ],
            width=12,
        ),
        Panel(
            "Latency",
            "From a record's timestamp to its acknowledged score: half, 99 % and 99.9 % of the records were quicker.",
            "ms",
            _LATENCY_MS,
            width=12,
        ),
        Panel(
            "Latency, all of it",
            "Records by the time from their timestamp to their acknowledged score.",
            "s",
            [Query("sum by (le) (increase(scoring_latency_seconds_bucket[$__rate_interval]))", "{{le}}")],
            "heatmap",
            12,
        ),
        Panel(
            "Daily predictions",
            "Scores of the 24 hours before, at each point in time.",
            "short",
            [Query("sum(increase(scored_transactions_total[1d]))", "scored in 24 h")],
            "bars",
            12,
        ),
        Panel(
            "Share flagged as fraud",
            "In 15 minutes, and in a day. A jump is a new kind of fraud, a new model or a broken field.",
            "percentunit",
            [
                Query("saker:flagged_share:ratio_rate15m", "15 minutes"),
                Query("saker:flagged_share:ratio_rate1d", "a day"),
            ],
            width=12,
        ),
        Panel(
            "Score distribution",
            "Records by their score.",
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
    "What the workers do with their time, and what they run on.",
    [
        Panel(
            "Stage latency, p99",
            "Time of a batch in each stage: 99 % were quicker.",
            "s",
            [Query(_quantile(0.99, "le, stage", "stage_latency_seconds"), "{{stage}}")],
            width=12,
        ),
        Panel(
            "Stage latency, mean",
            "Mean time of a batch in each stage.",
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
            "Records in a batch: a batch is what is there, so it grows with the load.",
            "short",
            [
                Query(_quantile(0.5, "le", "batch_records"), "p50"),
                Query(_quantile(0.99, "le", "batch_records"), "p99"),
            ],
        ),
        Panel(
            "Lag by partition",
            "Records in the input topic that the group has not committed.",
            "short",
            [Query("max by (topic, partition) (consumer_lag_records)", "{{topic}} {{partition}}")],
        ),
        Panel(
            "Records in flight",
            "Results that were produced and are not acknowledged yet.",
            "short",
            [Query("sum by (instance) (in_flight_records)", "{{instance}}")],
        ),
        Panel(
            "Worker restarts",
            "Workers that were started again after they died, in the time of a point.",
            "short",
            [Query("sum by (instance, worker) (increase(worker_restarts_total[$__rate_interval]))", "{{instance}} {{worker}}")],
        ),
        Panel(
            "Shadow",
            "What the second model says beside the one that serves: another decision, none, or left out for want of CPU.",
            "short",
            [Query("sum by (result) (increase(shadow_transactions_total[$__rate_interval]))", "{{result}}")],
        ),
        Panel(
            "Late when they arrived",
            "Records that were older than --late-ms when they arrived; they are scored and marked.",
            "short",
            [Query("sum by (instance) (increase(late_transactions_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Without any of the model's fields",
            "Records that were scored as if every value were missing: their fields have other names.",
            "short",
            [Query("sum by (instance) (increase(blank_transactions_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Deleted before they were scored",
            "Records that retention deleted while they waited, or that went with their topic.",
            "short",
            [Query("sum by (instance) (increase(deleted_records_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Partitions that nobody reads",
            "Of the input: no member of the group has them, or the topics of results do not.",
            "short",
            [Query("max by (instance) (unread_partitions)", "{{instance}}")],
        ),
        Panel(
            "Kafka answers",
            "1 where a broker answers, 0 where none does: saker waits for it.",
            "short",
            [Query("min by (instance) (broker_up)", "{{instance}}")],
        ),
        Panel(
            "Rebalances",
            "Assignments that the group's coordinator gave to workers.",
            "short",
            [Query("sum by (instance) (increase(rebalances_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            "Workers by what they run on",
            "Compiled kernels (avx512, avx2, baseline; native) or the reference paths (onnxruntime, reference, public).",
            "short",
            [Query("sum by (trees, rows, kafka) (workers_ready)", "trees {{trees}}, rows {{rows}}, kafka {{kafka}}")],
        ),
        Panel(
            "CPU",
            "Cores that each process uses.",
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
    "Whether the model is still right. The figures come from `saker monitor`.",
    [
        Panel(
            "Drift of the score",
            "Population stability index against the training rows. Above 0.1 one looks, above 0.25 one acts.",
            "none",
            [Query('max(drift_psi{feature="score"})', "score")],
            "stat",
            6,
        ),
        Panel(
            "Records looked at",
            "Live records that the drift was computed of.",
            "short",
            [Query("max(drift_records)", "records")],
            "stat",
            6,
        ),
        Panel(
            "Labelled records",
            "Scored records whose label has come.",
            "short",
            [Query("max(live_labelled_records)", "labelled")],
            "stat",
            6,
        ),
        Panel(
            "Last look",
            "Time since the monitor last looked.",
            "s",
            [Query("time() - max(monitor_last_success_timestamp_seconds)", "ago")],
            "stat",
            6,
        ),
        Panel(
            "Drift of the features",
            "The ten features that have moved most (PSI).",
            "none",
            [Query("topk(10, max by (feature) (drift_psi))", "{{feature}}")],
            width=12,
        ),
        Panel(
            "Champion against challenger",
            "Area under the ROC curve on the labelled live records.",
            "none",
            [Query("max by (alias) (live_roc_auc)", "{{alias}}")],
            width=12,
        ),
        Panel(
            "Live precision",
            "Share of the flagged records that were fraud.",
            "percentunit",
            [Query("max by (alias) (live_precision)", "{{alias}}")],
        ),
        Panel(
            "Live recall",
            "Share of the fraud that was flagged.",
            "percentunit",
            [Query("max by (alias) (live_recall)", "{{alias}}")],
        ),
        Panel(
            "Models loaded and refused",
            "Changes of the model while serving. One that was refused left the model before in place.",
            "short",
            [Query("sum by (result) (increase(model_loads_total[$__rate_interval]))", "{{result}}")],
        ),
        Panel(
            "Champion in the registry",
            "1 where the registry has the model that is followed, 0 where it has none.",
            "short",
            [Query("min(model_found)", "found")],
            width=24,
        ),
    ],
)

DASHBOARDS = (FRAUD_SCORING, ENGINE, MODEL)
