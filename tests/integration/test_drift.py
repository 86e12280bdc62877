"""`saker drift` over a real Kafka, as a user or Airflow runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saker.engine.kafka import clients
from saker.engine.model.active_model import ActiveModel
from saker.engine.pipeline import score_batch
from saker.export.registry import publish
from saker.training import synthetic
from saker.training.fit import Settings, train
from saker.training.tables import read_csv, to_records
from saker.training.track import log_run
from tests.support.scores import Model
from tests.support.serving import Topics

LIVE = 3_000
ULB = Path(__file__).parents[1] / "data" / "ulb_creditcard_sample.csv"


def stream(bootstrap_servers: str, topics: Topics, model: ActiveModel, records: list[bytes]) -> None:
    """Transactions and their scores, as `serve` would have left them."""
    results = score_batch(model, records).results
    producer, started = clients.producer(bootstrap_servers), time.time_ns() // 1_000_000
    for number, pair in enumerate(zip(records, results, strict=True)):
        for topic, value in zip((topics.raw, topics.scored), pair, strict=True):  # a score keeps its record's place and time
            producer.produce(topic, value, partition=number % 4, timestamp=started + number)
    producer.flush()


def drift(bootstrap_servers: str, topics: Topics, model: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "saker", "drift", "--bootstrap-servers", bootstrap_servers, "--model", model]
    command += ["--input", topics.raw, "--scores", topics.scored, "--last", str(LIVE), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("factor", [1, 3])
def test_what_moved_is_named(
    factor: int, bootstrap_servers: str, topics: Topics, generated_model: Model, tmp_path: Path
) -> None:
    table = synthetic.frame(LIVE, seed=7).drop(columns="isFraud")
    records = to_records(table.assign(TransactionAmt=table["TransactionAmt"] * factor))
    stream(bootstrap_servers, topics, ActiveModel.load(generated_model.path, "fraud/1"), records)
    done = drift(bootstrap_servers, topics, str(generated_model.path), "-o", str(tmp_path), "--json")
    assert (tmp_path / "drift.json").exists(), done.stderr
    told = json.loads((tmp_path / "drift.json").read_text())
    assert told["scores"] == LIVE
    assert LIVE * 0.9 < told["records"] <= LIVE * 1.1
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")
    if factor == 1:
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["drifted"] == told["drifted"] == []
    else:
        assert done.returncode == 1
        assert "TransactionAmt" in told["drifted"]
        assert "saker: drifted (PSI above 0.25): " in done.stderr
        assert done.stdout == ""


def test_evidently_writes_its_report_from_an_environment_of_its_own(
    bootstrap_servers: str, topics: Topics, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")  # Evidently's environment takes a minute to make: it is made once
    settings = Settings(label="Class", time="Time", id_field="ID", rounds=20)  # Evidently takes minutes for 434 columns
    table = read_csv(ULB, "ID")
    trained = train(table, settings)
    exported = publish.export_run(log_run(trained, settings, {}, tracking_uri), tracking_uri)
    path = tmp_path / "fraud.onnx"
    path.write_bytes(exported.model.SerializeToString())
    stream(bootstrap_servers, topics, ActiveModel.load(path, "fraud/1"), to_records(table.drop(columns="Class"))[:LIVE])
    report = tmp_path / "report.html"
    done = drift(bootstrap_servers, topics, "fraud/1", "--tracking-uri", tracking_uri, "--evidently", str(report))
    assert done.returncode == 0, done.stderr
    assert "nothing has drifted" in done.stdout
    assert b"Amount" in report.read_bytes()
