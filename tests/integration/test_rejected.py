"""`saker rejected`: what was rejected is listed without its values, shown, and sent again after a fix."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import orjson
import pytest

from saker.engine.kafka import admin
from tests.support.produce import send
from tests.support.serving import Topics


@pytest.fixture
def rejected(bootstrap_servers: str, topics: Topics) -> Any:
    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        word, *rest = arguments
        command = [sys.executable, "-m", "saker", "rejected", word, "--bootstrap-servers", bootstrap_servers]
        command += ["--rejected", topics.rejected, *rest]
        return subprocess.run(command, capture_output=True, timeout=60, check=False)

    return run


def test_rejections_are_listed_shown_and_sent_again(
    cards_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any, rejected: Any
) -> None:
    good = orjson.loads(cards_model.trained.records[0])
    lacking = orjson.dumps({name: value for name, value in good.items() if name != "Amount"})
    values = [b'{"secret": 4711', cards_model.trained.records[1], lacking, lacking]
    serving = serve(str(cards_model.path), workers=1)
    send(
        bootstrap_servers,
        topics.raw,
        [{"value": value, "key": b"k", "partition": n, "headers": [("trace", b"t")]} for n, value in enumerate(values)],
    )
    read(topics.rejected, 3)

    listed = rejected("list").stdout.decode()
    assert listed.startswith("3 rejections\n       2  missing_field Amount\n       1  invalid_json\n")
    assert "4711" not in listed
    told = json.loads(rejected("list", "--code", "invalid_json", "--json").stdout)
    assert [(one["at"], one["origin"], one["cut"]) for one in told] == [("0:0", f"{topics.raw}:0:0", False)]

    shown = rejected("show", "0:0").stdout
    assert shown.endswith(b'\n\n{"secret": 4711\n')
    assert b"saker.error.code: invalid_json\n" in shown
    assert b"trace: t\n" in shown
    assert b"no record at offset 9" in rejected("show", "0:9").stderr
    assert rejected("show", "x").returncode == 2

    assert b"would send 2 of 2" in rejected("replay", "--code", "missing_field", "--dry-run").stdout
    assert b"sent 2 of 2" in rejected("replay", "--field", "Amount").stdout
    again = [record for record in read(topics.rejected, 5) if "saker.replayed" in dict(record.headers)]
    assert sorted((record.partition, record.key, record.value) for record in again) == [(2, b"k", lacking), (3, b"k", lacking)]
    assert sorted(record.header("saker.replayed") for record in again) == ["2:0", "3:0"]
    assert [record.headers[0] for record in again] == [("trace", b"t")] * 2
    assert serving.stop() == 0


def test_what_stands_in_the_topic_steers_no_terminal_and_ends_no_command(
    bootstrap_servers: str, topics: Topics, rejected: Any
) -> None:
    why = {"code": "wrong_type", "field": "\x1b[2J", "message": "\x9b31m\u202eevil\rline", "topic": topics.raw}
    hostile = [(f"saker.error.{name}", text.encode()) for name, text in (why | {"partition": "0", "offset": "7"}).items()]
    records: list[dict[str, Any]] = [
        {"value": b"no rejection"},
        {"value": b"nor this", "headers": [("saker.error.code", b"\xff"), ("saker.error.field", b"")]},
        {"value": b"one\x1b]0;title\x07", "headers": hostile},
    ]
    send(bootstrap_servers, topics.rejected, [record | {"partition": 0} for record in records])
    listed = rejected("list")
    assert listed.returncode == 0
    text = listed.stdout.decode()
    assert text.startswith("1 rejections; ignored 2 records that saker did not write\n")
    assert "\\x1b[2J" in text
    assert "\\x9b31m\\u202eevil\\rline" in text
    assert all(one.isprintable() or one == "\n" for one in text)
    assert rejected("list", "--code", "wrong_type").returncode == 0
    assert (
        rejected("replay", "--dry-run").stdout == b"would send 1 of 1 rejections; ignored 2 records that saker did not write\n"
    )
    shown = rejected("show", "0:2").stdout
    head, _, value = shown.partition(b"\n\n")
    assert b"\x1b" not in head
    assert value == b"one\x1b]0;title\x07\n"  # into a pipe as it is


def test_one_that_does_not_fit_is_cut_and_stays(
    cards_model: Any, bootstrap_servers: str, topics: Topics, serve: Any, read: Any, rejected: Any
) -> None:
    narrow = f"{topics.rejected}-narrow"
    admin.create_topics(bootstrap_servers, [narrow], 4)
    serving = serve(str(cards_model.path), workers=1, options=["--rejected", narrow])
    large = b"[" + b"1," * 524_200 + b"1]"
    send(bootstrap_servers, topics.raw, [{"value": large, "partition": 1}, {"value": b"{", "partition": 1}])
    cut, whole = read(narrow, 2)
    assert 1_000_000 < len(cut.value) < len(large)
    assert large.startswith(cut.value)
    assert cut.header("saker.error.size") == str(len(large))
    assert (cut.header("saker.error.topic"), cut.header("saker.error.offset")) == (topics.raw, "0")
    assert whole.value == b"{"
    told = rejected("replay", "--rejected", narrow, "--dry-run")
    assert b"would send 1 of 2 rejections; 1 are truncated and cannot be replayed" in told.stdout
    assert serving.stop() == 0
