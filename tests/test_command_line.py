from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from saker.commands.options import app
from saker.engine.kafka import admin
from tests.support.command_line import main_here


def saker(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "saker", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def usage(*arguments: str) -> Result:
    """What is answered before a command does anything needs no process of its own, which takes seconds to start."""
    return CliRunner().invoke(app, arguments)


COMMANDS = [
    *("train", "export", "promote", "serve", "replay", "score", "stack", "demo", "doctor", "verify", "drift"),
    *(f"models {name}" for name in ("describe", "list", "show", "switch", "sign", "rollback")),
    *(f"rejected {name}" for name in ("list", "show", "replay")),
    *(f"bench {name}" for name in ("e2e", "peers", "trees", "rows", "pipeline", "report", "gate")),
]


def test_a_benchs_contender_that_there_is_none_of_is_named() -> None:
    told = usage("bench", "e2e", "--rate", "100", "--contenders", "baseline,nobody")
    assert told.exit_code == 2
    assert "unknown contenders nobody" in told.stderr


@pytest.mark.parametrize("batch", ["4097", "0", "many", "1,"])
def test_a_benchs_batch_that_there_are_no_rows_for_is_told(batch: str) -> None:
    told = usage("bench", "trees", "S", "--batch", batch)
    assert told.exit_code == 2
    assert f"expected numbers from 1 to 4096, by comma, got {batch}" in told.stderr


def test_a_model_over_its_budget_is_exit_code_1(cards_model: Any, tmp_path: Path) -> None:
    arguments = ["bench", "pipeline", str(cards_model.path), "--against", str(cards_model.path), "--batch", "64"]
    within = main_here(*arguments, "--budget-us", "1000", "--budget-ratio", "5", "--seconds", "0.1", "--json", folder=tmp_path)
    assert within.returncode == 0, within.stderr
    assert len(orjson.loads(within.stdout)["models"]) == 2
    over = main_here(*arguments, "--budget-us", "0.01", "--seconds", "0.1", folder=tmp_path)
    assert over.returncode == 1
    assert "µs of CPU per record, allowed are 0.01" in over.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    told = usage(*command.split(), "--help")
    assert told.exit_code == 0
    assert f"Example: `saker {command}" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "missing.csv"], "saker: no such file: missing.csv"),
        (["score", "x.csv", "-o", "y", "--model", "missing.onnx"], "saker: no such file: missing.onnx"),
        (["score", "x.csv", "-o", "y", "--model", "README.onnx"], "saker: model: this is not an ONNX file"),
        (
            ["serve", "--model", "fraud", "--bootstrap-servers", "127.0.0.1:1"],
            "saker: model 'fraud': expected FILE.onnx",
        ),
        (["export", "--booster", "README.onnx", "-o", "x.onnx"], "saker: model file: README.onnx: expected LightGBM"),
        (["export"], "saker: no finished run in experiment fraud"),
        (["models", "list"], "saker: no model fraud in the registry"),
        (["models", "rollback"], "saker: no model fraud in the registry"),
        (["bench", "report", __file__], "saker: "),
        (["bench", "gate", "--base", "no-such-revision"], "saker: git worktree add"),
        (["replay", "--data", ".", "--bootstrap-servers", "127.0.0.1:1"], "saker: "),
    ],
)
def test_an_expected_error_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, tmp_path: Path, tracking_uri: str
) -> None:
    assert str(tmp_path) in tracking_uri  # where the command looks without --tracking-uri
    (tmp_path / "README.onnx").write_text("# not a model")
    done = main_here(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(message)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError("out of memory")])
def test_a_process_at_its_limits_ends_with_one_line(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more() -> list[str]:
        raise error  # as Python does where the system gives no more

    monkeypatch.setattr("saker.commands.doctor.installed", no_more)
    done = main_here("doctor", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"saker: no more memory or threads ({error}): raise the limits of this process (ulimit, cgroup)\n"


def test_a_command_that_there_is_none_of_is_exit_code_2(tmp_path: Path) -> None:
    assert saker("nope", folder=tmp_path).returncode == 2


@pytest.mark.parametrize("arguments", [["serve"], ["train", "--generate", "many"], ["replay"], ["export", "--booster", "x"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert usage(*arguments).exit_code == 2


def test_a_broker_that_does_not_answer_is_named(cards_model: Any, tmp_path: Path) -> None:
    arguments = ["drift", "--model", str(cards_model.path), "--bootstrap-servers", "127.0.0.1:1"]
    done = main_here(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert "saker: no Kafka broker answered at 127.0.0.1:1" in done.stderr


def test_score_tells_of_every_record(cards_model: Any, tmp_path: Path) -> None:
    good = cards_model.trained.records[:3]
    labelled = orjson.dumps({**orjson.loads(good[0]), "isFraud": 1})
    (tmp_path / "records.jsonl").write_bytes(b"\n".join([labelled, b"{broken", *good[1:]]))
    arguments = ["score", "records.jsonl", "--model", str(cards_model.path), "-o", "out", "--rejected", "bad"]
    done = main_here(*arguments, folder=tmp_path)
    assert done.returncode == 0
    assert "scored 3, rejected 1" in done.stdout
    assert len((tmp_path / "out").read_bytes().splitlines()) == 3
    (reason,) = (orjson.loads(line) for line in (tmp_path / "bad").read_bytes().splitlines())
    assert (reason["line"], reason["code"]) == (2, "invalid_json")


def test_a_features_file_is_printed_read_and_exported_with(tmp_path: Path) -> None:
    booster = Path(__file__).parent / "export" / "data" / "4.7.0_binary.txt"
    printed = main_here("models", "describe", str(booster), folder=tmp_path)
    assert printed.returncode == 0
    (tmp_path / "features.toml").write_text(printed.stdout.replace("TransactionID", "id"))
    command = ["export", "--booster", str(booster), "-o", "m.onnx", "--features", "features.toml", "--threshold", "0.25"]
    assert main_here(*command, folder=tmp_path).returncode == 0
    again = main_here("models", "describe", "m.onnx", folder=tmp_path).stdout
    assert 'id_field = "id"\nthreshold = 0.25' in again


def test_doctor_looks_at_topics(bootstrap_servers: str, topics: Any, tmp_path: Path) -> None:
    names = ["--input", topics.raw, "--output", topics.scored, "--rejected", topics.rejected]
    asked = ["doctor", "--bootstrap-servers", bootstrap_servers, *names]
    told = saker(*asked, folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert f"topic {topics.raw}: partitions 4, replicas 1, max.message.bytes 1048588, min.insync.replicas 1" in told.stdout
    narrow = f"{topics.raw}-narrow"
    admin.create_topics(bootstrap_servers, [narrow], 1)
    told = saker(*asked, "--output", narrow, folder=tmp_path)
    assert told.returncode == 1
    assert f"topic {narrow} has 1 partitions, {topics.raw} has 4" in told.stdout + told.stderr


def test_doctor_shows_what_the_two_converters_make_of_a_kind(tmp_path: Path) -> None:
    told = main_here("doctor", "--export", "--kind", "binary_sigmoid_2", "--kind", "cross_entropy", folder=tmp_path)
    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert "binary_sigmoid_2: exact, 0 of 958 rows off; onnxmltools off in 800 of 800 rows as in training" in lines[-2]
    assert "cross_entropy: exact, 0 of" in lines[-1]
    assert "NotImplementedError" in lines[-1]
    assert main_here("doctor", "--export", "--kind", "none", folder=tmp_path).returncode == 2
