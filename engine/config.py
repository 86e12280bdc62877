"""Settings, and names that more than one package must agree on."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

#: The MLflow experiment and registered model that commands use by default.
EXPERIMENT = MODEL = "fraud"

#: Artifacts of a training run.
BOOSTER, CONTRACT, NEWEST = "booster.txt", "contract.json", "newest.tsv.gz"


AT_LEAST_ONCE, EXACTLY_ONCE = "at_least_once", "exactly_once"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def cache(part: str) -> Path:
    """The folder of the user's cache for `part` (models, kafka, ...); it is there when this returns."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saker" / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Limits of a topic for single records. The defaults apply if the broker does not report them."""

    #: max.message.bytes; counted by saker before compression, by the broker after it.
    max_bytes: int = 1_048_588
    #: A compacted topic takes no record without a key.
    needs_key: bool = False
    #: How far a record's timestamp may lie before and after the time of its arrival.
    before_ms: float = math.inf
    after_ms: float = math.inf


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """How records are written. With a registry each of them names its schema, with a file all are of that one."""

    format: str = "json"
    registry: str | None = None
    schema_file: Path | None = None
    #: Of Protobuf from a file: the name of the message.
    message: str = ""
    #: What is around the row of each record: debezium, cloudevents, or the path of the row.
    envelope: str = ""
    #: Tombstones and deleted rows are skipped instead of rejected. None: with an envelope that has deletes.
    skip_deletes: bool | None = None


@dataclass(frozen=True, slots=True)
class ResultSettings:
    """How results are written. schema_id: what the registry calls the schema of Avro and Protobuf results."""

    format: str = "json"
    schema_id: int = 0


JSON_RESULTS = ResultSettings()


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Histories of velocity features. folder: of their snapshots; None is the user's cache. megabytes: of each partition.

    snapshot_seconds: between two snapshots of a partition. cold_start: serve although records that they need are deleted.
    """

    folder: Path | None = None
    megabytes: int = 512
    snapshot_seconds: float = 60.0
    cold_start: bool = False


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What a pool and its workers need to know; handed to every worker process as it is."""

    bootstrap_servers: str
    input: str = "raw-transactions"
    output: str = "scored-transactions"
    rejected: str = "rejected-transactions"
    group: str = "fraud-scorers"
    workers: int = 1
    #: Where /metrics, /healthz and /readyz are served.
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 8000
    #: Between two looks whether the model has changed.
    model_poll_seconds: float = 10.0
    #: Names this pool in the group. A worker that is started again under its name has its partitions back at once.
    instance: str = field(default_factory=platform.node)
    #: classic; or consumer, the protocol of KIP-848, where the broker assigns (Kafka 4).
    group_protocol: str = "classic"
    max_batch: int = 500
    #: Records that were produced and are not acknowledged yet; more are not taken until some are.
    max_in_flight: int = 5_000
    drain_seconds: float = 10.0
    #: What the topics take; a pool asks them. A result beyond its topic's is a rejection, and one beyond that topic's is cut.
    output_limits: TopicLimits = TopicLimits()
    rejected_limits: TopicLimits = TopicLimits()
    #: Partitions from this number on are not read: the topics of results and of rejections do not have them.
    writable_partitions: int = 1 << 31
    #: Of the topic of transactions, which is committed with each offset. Empty: not known.
    topic_id: str = ""
    #: How long a result waits for others to be sent with. None: 0 while few are unanswered, 1 while many are
    #: (delivery/at_least_once.py), and 1 in transactions.
    linger_ms: float | None = None
    #: Topic of the scores of a second model (`saker.engine.serving.shadow`), and its CPU limit in cores.
    shadow_output: str = "shadow-scores"
    shadow_cpu: float = 0.25
    #: A record that is older when it arrives is scored all the same, marked as late and counted. None: no record is late.
    late_ms: float | None = None
    #: A worker without a report for this long (it reports every 0.25 s) is killed and restarted. What it may
    #: rightly be busy with is a transaction that ends badly: 40 s.
    hung_seconds: float = 60.0
    #: Or EXACTLY_ONCE: results and offsets in transactions.
    delivery: str = AT_LEAST_ONCE
    #: Length of a transaction. `read_committed` consumers see a result up to this much later.
    transaction_seconds: float = 0.05
    #: auto: the native kernels wherever they take the model; off: the reference paths.
    kernels: str = "auto"
    #: auto: librdkafka itself where the installed confluent-kafka was tested; native: that, or an error; public: public calls.
    transport: str = "auto"
    records: RecordSettings = RecordSettings()
    results: ResultSettings = JSON_RESULTS
    state: StateSettings = StateSettings()
