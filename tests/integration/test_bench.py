"""The bench measures what happened, on a real Kafka: every record is looked for, and scores are compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saker.bench.harness.contenders import OWN, BenchFailed, Contender, Topics
from saker.bench.harness.e2e import measure
from saker.bench.harness.open_loop import Load


def measured(bootstrap_servers: str, contender: Contender, number: int) -> None:
    run = measure(contender, bootstrap_servers, Load(500, 3), workers=1, number=number, warm_up_seconds=1)
    assert (run.sent, run.lost, run.duplicates, run.wrong) == (1500, 0, 0, 0)
    assert 0 < run.percentiles_ms["50"] <= run.percentiles_ms["99"] <= run.max_ms
    assert run.cpu_us > 0
    assert run.peak_mb > 10
    assert run.checked == (1500 if contender.scores else 0)
    if contender.name == "saker":
        assert {"wait", "decode", "score", "encode", "produce", "acknowledge"} == set(run.stages_ms)
        assert sum(run.stages_ms.values()) == pytest.approx(run.mean_ms)


@pytest.mark.parametrize("name", ["baseline", "saker", "python loop"])
def test_a_contender_is_measured(bootstrap_servers: str, name: str) -> None:
    measured(bootstrap_servers, OWN[name], 1 + list(OWN).index(name))


def peer(tmp_path: Path, work: str) -> Contender:
    """An echo of keys that does `work` to (number, key, value) before it is produced."""
    script = tmp_path / "peer.py"
    script.write_text(
        "import sys\n"
        "from confluent_kafka import Consumer, Producer\n"
        "servers, source, output, group = sys.argv[1:]\n"
        "consumer = Consumer({'bootstrap.servers': servers, 'group.id': group, 'auto.offset.reset': 'earliest'})\n"
        "producer = Producer({'bootstrap.servers': servers, 'linger.ms': 0})\n"
        "consumer.subscribe([source])\n"
        "while True:\n"
        "    message = consumer.poll(0.1)\n"
        "    if message is None or message.error():\n"
        "        continue\n"
        "    number, value = int.from_bytes(message.key(), 'big'), b'{\"fraud_score\":2}'\n"
        f"    {work}\n"
        "    producer.produce(output, value, message.key())\n"
        "    producer.poll(0)\n"
    )

    def commands(topics: Topics, workers: int) -> list[list[str]]:
        arguments = [topics.bootstrap_servers, topics.input, topics.output, topics.group]
        return [[sys.executable, str(script), *arguments]] * workers

    return Contender("peer", "", commands)


def test_wrong_scores_and_repeats_are_counted(bootstrap_servers: str, tmp_path: Path) -> None:
    contender = peer(tmp_path, "number == 1200 and producer.produce(output, value, message.key())")
    run = measure(contender, bootstrap_servers, Load(500, 3), workers=1, number=11, warm_up_seconds=1)
    assert (run.lost, run.duplicates) == (0, 1)
    assert run.wrong == run.checked > 900
    assert not run.whole


def test_a_lost_record_is_counted(bootstrap_servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saker.bench.harness.e2e._WAIT_SECONDS", 2)
    contender = peer(tmp_path, "if number == 700: continue")
    run = measure(contender, bootstrap_servers, Load(500, 3), workers=1, number=12, warm_up_seconds=1)
    assert (run.lost, run.whole) == (1, False)


def test_one_that_does_not_start_is_told_with_its_command(bootstrap_servers: str) -> None:
    contender = Contender("broken", "", lambda *_: [[sys.executable, "-c", "raise SystemExit(3)"]])
    with pytest.raises(BenchFailed, match="ended with exit code 3"):
        measure(contender, bootstrap_servers, Load(500, 3), workers=1, number=13, warm_up_seconds=1)
