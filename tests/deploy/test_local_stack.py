import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from saker.deploy.local import kafka as local
from saker.deploy.local.kafka import Broker
from saker.deploy.local.server import Server, StackError
from saker.deploy.local.stack import RAW, REJECTED, SCORED
from saker.engine.kafka import admin

CALLER = """
import signal, time
from saker.deploy.local.kafka import Broker
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests in the background, without it
broker = Broker()
broker.launch()
broker.wait()
print(broker.folder, flush=True)
time.sleep(600)
"""


def commands_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile
            continue
        if text in command:
            found.append(command)
    return found


def test_kafka_serves_the_three_topics(bootstrap_servers: str) -> None:
    assert admin.partition_counts(bootstrap_servers, [RAW, SCORED, REJECTED]) == {RAW: 4, SCORED: 4, REJECTED: 4}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_server_outlives_its_caller(end: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        folder = caller.stdout.readline().strip()
        assert any("kafka.Kafka" in command for command in commands_with(folder))
        os.kill(caller.pid, end)
        caller.stdout.read()  # the guard holds the other end: the end of this stream is the end of the guard
    assert commands_with(folder) == []
    assert not Path(folder).exists()


def test_a_server_that_dies_shows_its_log() -> None:
    server = Server("broken")
    server.start([sys.executable, "-c", "raise SystemExit('disk full')"])
    with pytest.raises(StackError, match=r"(?s)broken ended with exit code 1.*disk full"):
        server.wait_until(lambda: False)
    server.stop()
    assert not server.folder.exists()


def test_a_jar_that_is_not_as_locked_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in local.jars():
        (tmp_path / "saker" / "kafka").mkdir(parents=True, exist_ok=True)
        (tmp_path / "saker" / "kafka" / path.name).symlink_to(path)
    changed = tmp_path / "saker" / "kafka" / "snakeyaml-2.5.jar"
    changed.unlink()
    changed.write_bytes(b"something else")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broker = Broker()
    with pytest.raises(StackError, match=r"snakeyaml-2\.5\.jar has SHA-256"):
        broker.launch()
    broker.stop()
