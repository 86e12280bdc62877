"""`saker serve` with velocity features: every score is the one that the log says, whatever happens to the pool."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from saker.engine.kafka import clients
from saker.engine.kafka.reader import read_topic
from saker.engine.kafka.replay import replay
from tests.support import velocity
from tests.support.command_line import main_here
from tests.support.inbox import until
from tests.support.produce import send as produce
from tests.support.serving import Serving, Topics
from tests.support.velocity import OTHERS, VELOCITY, VelocityModel, check_scores, payments


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VelocityModel:
    return velocity.trained(tmp_path_factory.mktemp("velocity"))


def send(bootstrap_servers: str, topics: Topics, first: int, n: int, rate: float | None = None) -> None:
    pairs = list(payments(n, seed=first, first=first))
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=rate)


def await_recovery(serving: Serving) -> None:
    until("it is recovered", lambda: serving.metric("history_replaying_partitions") == 0)


def await_more(sent: list[int], parts: int) -> None:
    until("more is sent", lambda: len(sent) >= parts)


@contextmanager
def sending(bootstrap_servers: str, topics: Topics) -> Iterator[list[int]]:
    """Send while the body runs. The value grows by the number of records after each part, which are acknowledged then."""
    sent, done = [0], threading.Event()

    def run() -> None:
        while not done.is_set():
            send(bootstrap_servers, topics, sent[-1], 500, 1500)
            sent.append(sent[-1] + 500)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("backlog", [True, False])
def test_each_score_is_that_of_the_log(
    backlog: bool, delivery: str, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    options = ["--state", str(tmp_path), "--delivery", delivery]
    if backlog:
        send(bootstrap_servers, topics, 0, 6000)
        serve(str(model.path), workers=2, options=options)
    else:
        serve(str(model.path), workers=1, options=options)
        send(bootstrap_servers, topics, 0, 2000, rate=600)
    check_scores(bootstrap_servers, topics, model, 6000 if backlog else 2000)


def test_the_log_ends_with_the_marks_of_transactions(
    model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """No record is at the committed offset, and none before it that a replay could wait for."""
    producer = clients.producer(bootstrap_servers, **{"transactional.id": topics.raw})
    for first in (0, 500, 1000):
        producer.begin_transaction()
        for key, value in payments(500, seed=first, first=first):
            producer.produce(topics.raw, value, key)
        producer.commit_transaction()
        # Each time by a replay of the whole log.
        serving = serve(str(model.path), workers=1, options=["--state", str(tmp_path / str(first))])
        check_scores(bootstrap_servers, topics, model, first + 500)
        await_recovery(serving)
        assert serving.metric("history_replayed_records_total") == first
        assert serving.stop() == 0


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_pool_continues_where_it_was(
    kernels: str, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """With the snapshots of the stopped pool, without any, and with a damaged one."""
    options, snapshots = ["--state", str(tmp_path)], list[Path]()
    for first in (0, 1500, 3000, 4500):
        serving = serve(str(model.path), workers=2, options=options, kernels=kernels)
        send(bootstrap_servers, topics, first, 1500)
        check_scores(bootstrap_servers, topics, model, first + 1500, 1e-12 if kernels == "off" else 0.0)
        assert serving.stop() == 0
        snapshots = list(tmp_path.rglob("*.snapshot"))
        assert len(snapshots) == (4 if kernels == "auto" else 0)
        assert not list(tmp_path.rglob("*.part"))
        for one in snapshots:
            if first == 1500:
                one.unlink()
            elif first == 3000:
                one.write_bytes(one.read_bytes()[:-40])


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_the_model_changes_and_is_rolled_back(
    delivery: str, same: bool, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """To one with the same features, or with others: those are read from the log beforehand."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = velocity.trained(folder, VELOCITY if same else OTHERS, 30)
    file = tmp_path / "velocity.onnx"
    shutil.copy(model.path, file)
    options = ["--state", str(tmp_path / "state"), "--delivery", delivery, "--snapshot-seconds", "1"]
    serving = serve(str(file), workers=2, options=options)
    with sending(bootstrap_servers, topics) as sent:
        for used in (other, model):
            temporary = Path(shutil.copy(used.path, tmp_path / "next"))
            temporary.replace(file)
            serving.await_line(f"all workers score with {used.name}")
            await_more(sent, len(sent) + 2)
    counts = check_scores(bootstrap_servers, topics, [model, other], sent[-1], once=delivery == "exactly_once")
    assert counts[other.name] > 100
    assert serving.metric("worker_restarts_total") == 0
    assert serving.stop() == 0
    assert "incomplete" not in serving.rest_of_log()


def test_a_model_whose_history_is_gone_is_rejected(
    model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """The pool keeps its model, which has its own history. A pool cannot start with it without --state-cold-start."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = velocity.trained(folder, OTHERS, 30)
    file = tmp_path / "velocity.onnx"
    shutil.copy(model.path, file)
    options = ["--state", str(tmp_path / "state")]
    serving = serve(str(file), workers=1, options=options)
    send(bootstrap_servers, topics, 0, 500)
    check_scores(bootstrap_servers, topics, model, 500)
    admin = clients.admin(bootstrap_servers)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topics.raw)
    resource.add_incremental_config(ConfigEntry("retention.ms", "600000", incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result(10)
    for answer in admin.delete_records([TopicPartition(topics.raw, number, 20) for number in range(4)]).values():
        answer.result(10)
    shutil.copy(other.path, tmp_path / "next")
    (tmp_path / "next").replace(file)
    line = serving.await_line("records before offset 20 are deleted")
    assert "--state-cold-start" in line
    assert "retention.ms" in line
    assert serving.stop() == 0
    refused = serve(str(file), workers=1, options=options, ready=False)
    refused.await_line("records before offset 20 are deleted")
    assert refused.process.wait(60) == 1
    # The other model has its snapshots.
    shutil.copy(model.path, tmp_path / "next")
    (tmp_path / "next").replace(file)
    serving = serve(str(file), workers=1, options=options)
    assert serving.stop() == 0
    shutil.copy(other.path, tmp_path / "next")
    (tmp_path / "next").replace(file)
    serving = serve(str(file), workers=1, options=[*options, "--state-cold-start"])
    send(bootstrap_servers, topics, 500, 100)
    until("they count as incomplete", lambda: serving.metric("history_incomplete_records_total") == 100)
    assert serving.stop() == 0


def test_another_number_of_partitions_is_refused(
    model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    options = ["--state", str(tmp_path)]
    assert serve(str(model.path), workers=1, options=options).stop() == 0
    admin = clients.admin(bootstrap_servers)
    for topic in (topics.scored, topics.rejected, topics.raw):
        admin.create_partitions([NewPartitions(topic, 5)])[topic].result(10)
    refused = serve(str(model.path), workers=1, options=options, ready=False)
    assert "--state-cold-start" in refused.await_line("had 4 partitions and has 5 now")
    assert refused.process.wait(60) == 1
    assert serve(str(model.path), workers=1, options=[*options, "--state-cold-start"]).stop() == 0
    assert serve(str(model.path), workers=1, options=options).stop() == 0


def test_another_key_is_refused(
    model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """The records of a card are in several partitions, since another field is the Kafka key: no history is whole."""
    doctor = ["doctor", "--bootstrap-servers", bootstrap_servers, "--model", str(model.path)]
    doctor += ["--input", topics.raw, "--output", topics.scored, "--rejected", topics.rejected]
    send(bootstrap_servers, topics, 0, 200)
    assert "6 velocity features" in main_here(*doctor, folder=tmp_path).stdout
    pairs = [(str(orjson.loads(value)["shop"]).encode(), value) for _, value in payments(300, first=200)]
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw)
    refused = serve(str(model.path), workers=1, options=["--state", str(tmp_path)], ready=False)
    line = refused.await_line("velocity features by card")
    assert "are in different partitions" in line
    assert "the field that is the Kafka key" in line
    assert refused.process.wait(60) == 1
    done = main_here(*doctor, folder=tmp_path)
    assert done.returncode == 1
    assert "velocity features by card" in done.stderr
    assert serve(str(model.path), workers=1, options=["--state", str(tmp_path), "--state-cold-start"]).stop() == 0


def test_a_folder_that_cannot_be_used_is_named(model: VelocityModel, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = serve(str(model.path), workers=1, options=["--state", str(tmp_path / "file")], ready=False)
    assert "name a folder with --state that this user can write" in refused.await_line(str(tmp_path / "file"))
    assert refused.process.wait(60) == 1


def test_verify_reads_the_history(
    model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """Of the newest scores, from all records before them; a score of another history differs."""
    send(bootstrap_servers, topics, 0, 3000)
    serving = serve(str(model.path), workers=1, options=["--state", str(tmp_path)])
    check_scores(bootstrap_servers, topics, model, 3000)
    (tmp_path / "booster.txt").write_text(model.booster.model_to_string())
    where = ["--bootstrap-servers", bootstrap_servers, "--input", topics.raw]
    used = ["--model", str(model.path), "--booster", str(tmp_path / "booster.txt")]
    done = main_here("verify", *where, "--output", topics.scored, "--last", "1000", *used, folder=tmp_path)
    assert "OK: 1,000 scores" in done.stdout, done.stderr
    assert serving.stop() == 0
    wrong = [one for one in read_topic(bootstrap_servers, topics.scored, 3000) if one.partition == 0][-1]
    result = orjson.loads(wrong.value or b"")
    changed = orjson.dumps(result | {"fraud_score": result["fraud_score"] / 2, "is_fraud": False})
    sent = {"key": wrong.key, "value": changed, "partition": 0, "timestamp": wrong.timestamp_ms}
    produce(bootstrap_servers, topics.scored, [sent])
    done = main_here("verify", *where, "--output", topics.scored, "--last", "1000", *used, folder=tmp_path)
    assert "DIFFERENT" in done.stdout
    assert "1 off, 1 off from the Booster" in done.stdout
    assert done.returncode == 1
