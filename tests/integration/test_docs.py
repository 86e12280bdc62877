"""Every command block of the README and the documentation runs as it is written, or is marked with the reason why not.

A marker is an HTML comment in the line above the block: `<!-- not run: it needs a cluster -->`. Blocks of a page share a
folder, an environment and a broker, and run in order.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import lightgbm
import numpy as np
import orjson
import pytest
from mlflow.tracking import MlflowClient

import saker
from saker.deploy.local.stack import REJECTED, SCORED, local_kafka
from saker.engine.contract import Contract
from saker.engine.kafka.reader import read_topic
from saker.engine.records.encode import AVRO_SCHEMA
from saker.training.tables import read_csv, to_records
from tests.support.scores import expected_scores
from tests.support.serving import Serving

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL, OWN_TOPIC = DOCS / "tutorials" / "first-score.md", DOCS / "tutorials" / "your-topic.md"
AVRO_TOPIC = DOCS / "tutorials" / "avro-topic.md"
REGISTRY = "http://localhost:8081/apis/ccompat/v7"
ULB = ROOT / "tests" / "data" / "ulb_creditcard_sample.csv"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^>]+) -->\n)?^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    language: str
    text: str
    reason: str | None

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    return [Block(found["language"], found["text"], found["reason"]) for found in _FENCE.finditer(page.read_text())]


def to_run(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("sh", "python") and block.reason is None]


@dataclass
class Reader:
    """Somebody who follows a page."""

    folder: Path
    bootstrap_servers: str
    registry: str = ""
    pool: Serving | None = None
    printed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db"}

    def follow(self, page: Path) -> None:
        for block in to_run(page):
            if block.language == "python":
                self.run([sys.executable, "-c", block.text], block.text)
            else:
                for line in block.lines:
                    self.type(line)

    def type(self, line: str) -> None:
        command = line.replace("localhost:9092", self.bootstrap_servers).replace(REGISTRY, self.registry)
        if command.startswith("export MLFLOW_TRACKING_URI="):
            return  # a database in the folder, in place of the stack's server
        if command.startswith("saker serve"):
            self.serve(command.removesuffix("&"))
            return
        if command.startswith("saker top"):
            assert self.pool is not None
            command += f" --url {self.pool.url}/metrics"
        self.run(["bash", "-euo", "pipefail", "-c", command], line)
        if command.startswith("saker replay"):
            count = int(re.findall(r"acknowledged (\d+)", self.printed["saker replay"])[0])
            read_topic(self.bootstrap_servers, SCORED, count)  # raises if they do not come

    def run(self, command: list[str], line: str) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        self.printed[" ".join(line.split()[:2])] = done.stdout

    def serve(self, command: str) -> None:
        words = [sys.executable, "-m", *command.split(), "--metrics-port", "0"]
        process = subprocess.Popen(words, cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True)
        self.pool = Serving(process)
        self.pool.await_line("ready: every partition")

    def leave(self) -> None:
        if self.pool is not None:
            assert self.pool.stop(signal.SIGTERM) == 0


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    page: Path = request.node.callspec.params["page"]
    if "localhost:9092" not in "".join(block.text for block in to_run(page)):
        yield Reader(tmp_path, "")
        return
    with local_kafka() as bootstrap_servers:
        reader = Reader(tmp_path, bootstrap_servers)
        if REGISTRY in page.read_text():
            reader.registry = request.getfixturevalue("registry")
        try:
            yield reader
        finally:
            if reader.pool is not None:
                reader.pool.process.kill()
                reader.pool.process.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_runs_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("sh", "python", "text", "json", "toml", "yaml", "protobuf"), block.text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "DESIGN.md", "SECURITY.md", "CHANGELOG.md"])
def test_a_link_leads_to_a_file(name: str) -> None:
    """mkdocs checks those of docs/."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / name).read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_site_has_the_version_of_the_product() -> None:
    assert f"copyright: saker {saker.__version__}," in (ROOT / "mkdocs.yml").read_text()


def test_the_readme_is_short_and_its_commands_are_those_of_the_tutorial() -> None:
    readme, tutorial = PAGES[0], [line for block in to_run(TUTORIAL) for line in block.lines]
    assert len(readme.read_text().split()) <= 500
    assert {line for block in to_run(readme) for line in block.lines} <= set(tutorial)


FOLLOWED = [page for page in PAGES[1:] if to_run(page) and page not in (TUTORIAL, OWN_TOPIC, AVRO_TOPIC)]


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_commands_of_a_page(page: Path, reader: Reader) -> None:
    reader.follow(page)
    reader.leave()


@pytest.mark.parametrize("page", [TUTORIAL], ids=["first-score"])
def test_the_first_tutorial(page: Path, reader: Reader) -> None:
    reader.follow(page)
    messages = read_topic(reader.bootstrap_servers, SCORED, 3265)
    rejections = read_topic(reader.bootstrap_servers, REJECTED, 0)
    reader.leave()
    printed = reader.printed
    assert "sent 3265, acknowledged 3265" in printed["saker replay"]
    assert "fraud/1 is the first champion" in printed["saker promote"]
    assert "0 wrong leaves" in printed["saker export"]
    assert "scored" in printed["saker top"]
    assert "OK: " in printed["saker verify"]
    assert rejections == []
    files = "saker verify --records tests/data/ulb_creditcard_sample.csv --scores scores.jsonl --model fraud.onnx"
    reader.type(f"{files} --label Class --id ID --report found.json")
    assert "OK: 3,265 scores" in printed["saker verify"]
    assert orjson.loads((reader.folder / "found.json").read_bytes())["passed"] is True

    # The scores that came back are LightGBM's, from the Booster that the run logged.
    client = MlflowClient(reader.environment["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs([client.get_experiment_by_name("fraud").experiment_id])
    assert {"roc_auc", "pr_auc", "recall_at_1pct_fpr"} <= run.data.metrics.keys()
    assert run.data.tags["data_sha256"]
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"booster.txt", "contract.json", "plots.png"} <= artifacts
    booster = lightgbm.Booster(model_file=client.download_artifacts(run.info.run_id, "booster.txt"))
    contract = Contract.from_json(Path(client.download_artifacts(run.info.run_id, "contract.json")).read_text())
    assert contract.provenance.run_id == run.info.run_id
    records = to_records(read_csv(ULB, "ID").drop(columns=["Class"]))
    expected = list(expected_scores(booster, contract, records).values())
    answers = [orjson.loads(message.value or b"") for message in messages]
    streamed = {answer["ID"]: answer["fraud_score"] for answer in answers}
    assert len(answers) == len(streamed) == 3265
    np.testing.assert_allclose([streamed[i] for i in range(3265)], expected, rtol=1e-15)
    assert {answer["model"] for answer in answers} == {"fraud/1"}

    filed = [orjson.loads(line) for line in (reader.folder / "scores.jsonl").read_bytes().splitlines()]
    np.testing.assert_allclose([answer["fraud_score"] for answer in filed], expected, rtol=1e-15)


@pytest.mark.parametrize("page", [OWN_TOPIC], ids=["your-topic"])
def test_the_tutorial_of_your_own_topic(page: Path, reader: Reader) -> None:
    reader.follow(page)
    reader.leave()
    assert "OK: LightGBM" in reader.printed["saker export"]
    assert "scored 6, rejected 0" in reader.printed["saker score"]
    assert "OK: 6 scores" in reader.printed["saker verify"]
    data = reader.folder / "tests" / "export" / "data"
    booster = lightgbm.Booster(model_file=data / "3.3.5_binary.txt")
    records = [orjson.loads(line) for line in (data / "records.jsonl").read_bytes().splitlines()]
    rows = np.array([[record[name] for name in booster.feature_name()] for record in records], np.float32)
    answers = [orjson.loads(line) for line in (reader.folder / "other-scores.jsonl").read_bytes().splitlines()]
    np.testing.assert_allclose([a["fraud_score"] for a in answers], booster.predict(rows), rtol=1e-15)
    assert [a["is_fraud"] for a in answers] == (booster.predict(rows) >= 0.3).tolist()


@pytest.mark.parametrize("page", [AVRO_TOPIC], ids=["avro-topic"])
def test_the_tutorial_of_an_avro_topic(page: Path, reader: Reader) -> None:
    """Each score is that of LightGBM for what fastavro reads, and fastavro reads the score."""
    reader.follow(page)
    reader.leave()
    assert "OK: 2,000 scores of 2,000 records" in reader.printed["saker verify"]
    assert reader.printed["saker doctor"].count("->") == 8
    assert "NOT IN THE SCHEMA" not in reader.printed["saker doctor"]
    client = MlflowClient(reader.environment["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs([client.get_experiment_by_name("fraud").experiment_id])
    assert run.data.metrics["roc_auc"] > 0.75
    booster = lightgbm.Booster(model_file=client.download_artifacts(run.info.run_id, "booster.txt"))
    contract = Contract.from_json(Path(client.download_artifacts(run.info.run_id, "contract.json")).read_text())
    assert [one.name for one in contract.features] == [
        "hour_of_day", "day_of_week", "amount", "online", "card.token", "card.network", "card.limit", "card.age_days",
    ]  # fmt: skip
    codes = {one.name: {text: code for code, text in enumerate(one.vocabulary)} for one in contract.features}
    with (reader.folder / "live.avro").open("rb") as file:
        records: list[Any] = list(fastavro.reader(file))
    rows = [
        [
            record["at"].hour, (record["at"].weekday() - 3) % 7, float(record["amount"]), record["online"],
            codes["card.token"].get(record["card"]["token"], np.nan), codes["card.network"][record["card"]["network"]],
            *(np.nan if record["card"][name] is None else record["card"][name] for name in ("limit", "age_days")),
        ]
        for record in records
    ]  # fmt: skip
    expected = booster.predict(np.array(rows, np.float32), num_threads=1)
    of = fastavro.parse_schema(orjson.loads(AVRO_SCHEMA))
    messages = read_topic(reader.bootstrap_servers, SCORED, 2000)
    answers: list[Any] = [fastavro.schemaless_reader(io.BytesIO((one.value or b"")[5:]), of, None) for one in messages]
    scores = {answer["id"]: answer["fraud_score"] for answer in answers}
    np.testing.assert_allclose([scores[record["payment_id"]] for record in records], expected, rtol=1e-15)
    assert read_topic(reader.bootstrap_servers, REJECTED, 0) == []
