"""Prometheus and Alertmanager watch a pool under load: every panel has data, every alert fires by its cause and resolves.

Run by `make stack-test`: not collected by itself, as it takes minutes. All durations of rules and alerts are a sixtieth of
those in deploy/, so an hour is a minute.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import psutil
import pytest
import yaml
from confluent_kafka.admin import NewPartitions
from mlflow.tracking import MlflowClient

from saker import deploy
from saker.deploy.grafana.panels import DASHBOARDS, Panel
from saker.deploy.local.monitoring import Alertmanager, Prometheus
from saker.deploy.local.server import free_port
from saker.deploy.local.stack import RAW, REJECTED, SCORED, local_kafka
from saker.deploy.local.tracking import Tracking
from saker.engine.contract import Contract, Feature
from saker.engine.history.table_history import history_of
from saker.engine.kafka import admin, clients
from saker.engine.metrics.declared import METRICS
from saker.engine.model import registry
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch
from saker.engine.velocity import EventTime, Velocity, parse_window
from saker.export.external_models import contract_for, export_file
from saker.export.proven_export import export_proven
from saker.export.registry import publish
from saker.training import synthetic
from saker.training.fit import Settings, train
from saker.training.tables import to_records
from saker.training.track import log_run
from tests.support.inbox import Inbox, until
from tests.support.serving import worker_ids

FACTOR = 60
LABELS = "transaction-labels"
RATE = 200
ALERTS = Path(deploy.__file__ or "").parent / "prometheus" / "alerts.yml"


@dataclass
class Load:
    """Transactions at a steady rate, and their labels; what is wrong with them is set by the tests."""

    bootstrap_servers: str
    ordinary: list[bytes]
    flagged: list[bytes]
    malformed: float = 0.0
    age_seconds: float = 0.0
    only_flagged: bool = False
    paused: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        producer = clients.producer(self.bootstrap_servers)
        due, ordinary, flagged = time.monotonic(), itertools.cycle(self.ordinary), itertools.cycle(self.flagged)
        for number in itertools.count():
            due += 1 / RATE
            if self.stop.wait(max(due - time.monotonic(), 0)):
                return
            if not self.paused:
                value = next(flagged if self.only_flagged else ordinary)
                wrong = number % 100 < 100 * self.malformed
                now_ms = int((time.time() - self.age_seconds) * 1000)
                producer.produce(RAW, b"{" if wrong else value, partition=number % 4, timestamp=now_ms)
            producer.poll(0)


@dataclass
class Watched:
    load: Load
    inbox: Inbox
    prometheus: Prometheus
    client: MlflowClient
    serve: Callable[..., subprocess.Popen[bytes]]
    pool: subprocess.Popen[bytes]
    tracking: Tracking

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        expr = expr.replace("$__rate_interval", "8s").replace("$__range", "60s")
        expr = re.sub(r"\[1d\]", "[60s]", expr)
        address = f"{self.prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return [(series["metric"], float(series["value"][1])) for series in told["data"]["result"]]

    def numbers(self, expr: str) -> list[float]:
        return [value for _, value in self.query(expr) if not math.isnan(value)]

    def workers(self) -> list[int]:
        return worker_ids(self.pool.pid)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        tracking, inbox = Tracking(), Inbox()
        stack.callback(tracking.stop)
        tracking.launch()
        bootstrap_servers = stack.enter_context(local_kafka(lasting=True))
        admin.create_topics(bootstrap_servers, [LABELS, "shadow-scores"], 4)
        tracking.wait()
        # The load repeats its records, each in the same partition every time.
        again = Feature("seen_1h", "velocity", velocity=Velocity(("TransactionID",), "count", parse_window("1h")))
        settings = Settings(rounds=40, velocity=(again,))
        log_run(train(synthetic.frame(10_000), settings), settings, {}, tracking.uri)
        client = MlflowClient(tracking.uri)
        for _ in range(2):
            version = publish.export_run("latest", tracking.uri).version
            client.set_registered_model_alias("fraud", "champion", version)
        client.set_registered_model_alias("fraud", "champion", "1")

        table = synthetic.frame(4_000, seed=7)
        records = to_records(table.drop(columns="isFraud"))
        located = registry.locate("fraud/1", tracking.uri)
        model = ActiveModel.load(located.path, "fraud/1", history=history_of)
        answers = [orjson.loads(answer) for answer in score_batch(model, records).results]
        producer = clients.producer(bootstrap_servers)
        for answer, truth in zip(answers, table["isFraud"].tolist(), strict=True):
            label = {"TransactionID": answer["TransactionID"], "isFraud": truth}
            producer.produce(LABELS, json.dumps(label).encode())
        producer.flush()
        flagged = [record for record, answer in zip(records, answers, strict=True) if answer["is_fraud"]]
        load = Load(bootstrap_servers, records, flagged)
        port, monitor_port = free_port(), free_port()

        def start(*command: str) -> subprocess.Popen[bytes]:
            environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
            process = subprocess.Popen(
                [sys.executable, "-m", "saker", *command, "--bootstrap-servers", bootstrap_servers], env=environment
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def serve(*options: str) -> subprocess.Popen[bytes]:
            command = ["serve", "--model", "fraud@champion", "--model-poll", "0.5", "--metrics-port", str(port)]
            saved = ["--state", "state", "--snapshot-seconds", "5"]
            return start(*command, "--workers", "2", "--shadow", "fraud/2", *saved, *options)

        pool = serve()
        monitor = ["monitor", "--labels", LABELS, "--challenger", "fraud/2", "--every", "1", "--last", "1000"]
        start(*monitor, "--metrics-port", str(monitor_port))
        alertmanager = Alertmanager(
            f"http://127.0.0.1:{inbox.webhook.server_port}/", f"127.0.0.1:{inbox.smtp.server_address[1]}", FACTOR
        )
        targets = {"saker": [f"127.0.0.1:{port}"], "saker-monitor": [f"127.0.0.1:{monitor_port}"]}
        prometheus = Prometheus(targets, alertmanager.address, factor=FACTOR)
        for server in (alertmanager, prometheus):
            stack.callback(server.stop)
            server.launch()
            server.wait()
        stack.callback(load.stop.set)
        threading.Thread(target=load.run, daemon=True).start()
        yield Watched(load, inbox, prometheus, client, serve, pool, tracking)


def panel_name(panel: Panel) -> str:
    return panel.title


@pytest.mark.parametrize("panel", [panel for shown in DASHBOARDS for panel in shown.panels], ids=panel_name)
def test_every_panel_has_data_of_its_unit(watched: Watched, panel: Panel) -> None:
    for query in panel.queries:
        series = until(query.expr, partial(watched.numbers, query.expr))
        assert all(value >= 0 for value in series)
        if panel.unit == "percentunit":
            assert all(value <= 1 for value in series)
        elif panel.unit == "ms":
            assert all(0.1 < value < 20_000 for value in series)
        elif panel.unit == "s" and panel.kind != "heatmap":
            assert all(value < 60 for value in series)
        elif panel.unit == "bytes":
            assert all(1e5 < value < 1e10 for value in series)
        elif panel.unit == "reqps":
            assert sum(series) < 5 * RATE
        for name in re.findall(r"\{\{(\w+)\}\}", query.legend):
            assert all(name in labels for labels, _ in watched.query(query.expr))


def test_every_query_of_an_alert_is_answered_and_none_fires(watched: Watched) -> None:
    for alert in alerts():
        watched.query(alert["expr"])
    until("every rule of Prometheus evaluated", lambda: watched.query("saker:flagged_share:ratio_rate1d"))
    assert watched.query('ALERTS{alertstate="firing"}') == []


def alerts() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return rules


def check(watched: Watched, name: str) -> None:
    """The alert arrives as Slack shows it, and by mail if it is worth getting up for."""
    severity = next(alert["labels"]["severity"] for alert in alerts() if alert["alert"] == name)
    message = watched.inbox.await_title(f"{severity.upper()}: {name}")
    assert message["color"] == ("danger" if severity == "page" else "warning")
    assert message["title_link"].endswith(f"runbook.md#{name.lower()}")
    assert f"What to do: docs/operate/runbook.md#{name.lower()}" in message["text"]
    assert "<no value>" not in message["text"]
    if severity == "page":
        until(
            f"{name} by mail",
            lambda: any(re.search(rf"Subject: (=\?.*)?PAGE: {name}|{name}", mail) for mail in watched.inbox.mail),
        )


def resolved(watched: Watched, *names: str) -> None:
    for name in names:
        assert watched.inbox.await_title(f"RESOLVED: {name}", 240)["color"] == "good"


def test_bad_transactions(watched: Watched) -> None:
    names = ("TransactionsRejected", "LatencyBudgetBurnsFast", "Drift", "FlaggedShareJumped")
    load = watched.load
    # What is usual takes a while to become so.
    until("ordinary traffic", lambda: watched.query(f"sum(scored_transactions_total) > {90 * RATE}"), 120)
    load.malformed, load.age_seconds, load.only_flagged = 0.05, 1.0, True
    for name in names:
        check(watched, name)
    load.malformed, load.age_seconds, load.only_flagged = 0.0, 0.0, False
    check(watched, "LatencyBudgetBurns")  # held back while the faster one fires
    resolved(watched, *names, "LatencyBudgetBurns")


def test_a_registry_without_a_champion_and_a_model_that_is_refused(watched: Watched) -> None:
    client = watched.client
    client.delete_registered_model_alias("fraud", "champion")
    check(watched, "NoChampion")
    found = client.get_model_version("fraud", "2")
    client.set_model_version_tag("fraud", "2", registry.SHA256_TAG, "0" * 64)
    client.set_registered_model_alias("fraud", "champion", "2")
    check(watched, "ModelLoadFailed")
    client.set_model_version_tag("fraud", "2", registry.SHA256_TAG, found.tags[registry.SHA256_TAG])
    until("version 2 serves", lambda: watched.query('model_info{version="2"}'))
    assert watched.query('model_loads_total{result="loaded"}')[0][1] == 1
    resolved(watched, "NoChampion", "ModelLoadFailed")


def test_partitions_without_a_place_for_their_results(watched: Watched) -> None:
    client = clients.admin(watched.load.bootstrap_servers)

    def grow(topic: str) -> None:
        client.create_partitions([NewPartitions(topic, 4 + 1)])[topic].result()

    grow(RAW)
    check(watched, "PartitionsUnread")
    for topic in (SCORED, REJECTED):
        grow(topic)
    resolved(watched, "PartitionsUnread")


def test_a_registry_that_accepts_requests_and_never_answers(watched: Watched) -> None:
    servers = [process for process in psutil.process_iter() if watched.tracking.uri.rpartition(":")[2] in arguments(process)]
    assert servers
    servers += [child for server in servers for child in server.children(recursive=True)]
    try:
        for server in servers:
            server.suspend()
        check(watched, "ModelNotFollowed")
    finally:
        for server in servers:
            server.resume()
    resolved(watched, "ModelNotFollowed")


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if "mlflow" in process.cmdline() else []
    except psutil.Error:
        return []


def test_workers_that_die(watched: Watched) -> None:
    def another(before: list[int]) -> bool:
        return len(set(watched.workers()) - set(before)) == 1

    for _ in range(4):
        before = watched.workers()
        os.kill(before[0], signal.SIGKILL)
        until("another worker", partial(another, before))
    check(watched, "WorkerRestarts")
    resolved(watched, "WorkerRestarts")


def test_workers_that_hang(watched: Watched) -> None:
    hanging = watched.workers()
    for worker in hanging:
        os.kill(worker, signal.SIGSTOP)
    check(watched, "ConsumerLagGrows")
    check(watched, "NoTraffic")
    delete_waiting(watched.load.bootstrap_servers)
    for worker in hanging:
        os.kill(worker, signal.SIGCONT)
    check(watched, "RecordsDeleted")
    resolved(watched, "ConsumerLagGrows", "NoTraffic", "RecordsDeleted")


def delete_waiting(bootstrap_servers: str) -> None:
    """What retention does to records that wait too long."""
    admin = clients.admin(bootstrap_servers)
    everything = [clients.TopicPartition(RAW, number, -1) for number in range(4)]
    for answer in admin.delete_records(everything).values():
        answer.result()


def test_a_broker_that_does_not_answer(watched: Watched) -> None:
    port = int(watched.load.bootstrap_servers.rpartition(":")[2])
    broker = next(c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port)
    os.kill(broker, signal.SIGSTOP)
    check(watched, "KafkaUnreachable")
    os.kill(broker, signal.SIGCONT)
    resolved(watched, "KafkaUnreachable")


def test_nobody_answers_and_another_pool_on_the_reference_path(watched: Watched) -> None:
    watched.pool.kill()
    check(watched, "SakerDown")
    watched.pool = watched.serve("--kernels", "off")
    check(watched, "ReferencePathActive")
    resolved(watched, "SakerDown")


def test_a_model_of_other_fields(watched: Watched, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(int), feature_name=["betrag", "anzahl"])
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 5)
    path = tmp_path / "other.onnx"
    path.write_bytes(export_proven(booster, contract_for(booster)).data)
    watched.pool.kill()
    watched.pool = watched.serve("--model", str(path))
    check(watched, "FieldsMissing")


def test_histories_that_are_too_small_and_cannot_be_saved(watched: Watched, tmp_path: Path) -> None:
    """The records of the load have no event time for this model, and others come with more keys than there is room for."""
    contract = Contract(
        (
            Feature("TransactionAmt"),
            Feature("n_1h", "velocity", velocity=Velocity(("card",), "count", parse_window("1h"))),
        ),
        event_time=EventTime("at", "ms"),
    )
    rows = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(int), feature_name=["TransactionAmt", "n_1h"])
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 5)
    booster.save_model(tmp_path / "model.txt")
    (tmp_path / "model.onnx").write_bytes(export_file(tmp_path / "model.txt", contract).data)
    watched.pool.kill()
    options = ["--state-mb", "1", "--state-cold-start", "--snapshot-seconds", "1", "--state", str(tmp_path / "state")]
    watched.pool = watched.serve("--model", str(tmp_path / "model.onnx"), *options)
    until("snapshots", lambda: list((tmp_path / "state").rglob("*.snapshot")))
    (folder,) = (tmp_path / "state").glob("group-*/*")
    shutil.rmtree(folder)
    producer = clients.producer(watched.load.bootstrap_servers)
    at = int(time.time() * 1000)
    for number in range(100_000):
        value = orjson.dumps({"TransactionID": number, "TransactionAmt": 1, "card": number, "at": at})
        while True:
            try:
                producer.produce(RAW, value, partition=number % 4)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    for alert in ("HistoriesEvicted", "HistoriesIncomplete", "EventTimesUnusable", "SnapshotsFail"):
        check(watched, alert)


def test_every_alert_has_been_seen_and_every_metric_was_there(watched: Watched) -> None:
    titles = watched.inbox.titles()
    for alert in alerts():
        assert any(alert["alert"] in title for title in titles)
    for name, declared in METRICS.items():
        exposed = name + {"counter": "_total", "gauge": "", "histogram": "_count"}[declared.kind]
        assert watched.query(f"last_over_time({exposed}[10m])"), exposed
