from __future__ import annotations

import hashlib
import json
import os
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import mlflow.onnx
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

import saker
from saker.commands.promotion import decide
from saker.deploy.local.server import Server, answers, free_port
from saker.engine.errors import ModelRefused
from saker.engine.model import registry
from saker.engine.model.session import open_session
from saker.export.registry import model_versions, publish, run_artifacts
from saker.training.compare import CannotCompare, Decision
from saker.training.fit import Settings, train
from saker.training.tables import numbers, read_csv
from saker.training.track import log_run

CARDS = Settings(label="Class", time="Time", id_field="ID", rounds=60)
ULB = Path(__file__).parents[2] / "data" / "ulb_creditcard_sample.csv"


def register(uri: str, settings: Settings) -> str:
    trained = train(read_csv(ULB, "ID"), settings)
    log_run(trained, settings, {"data": "cards"}, uri)
    return publish.export_run("latest", uri).version


def promote(uri: str, data: Path | None = None) -> Decision:
    return decide(data, "Class", None, "ID", (0.0, 0.7), uri)


def test_rows_that_a_model_learned_from_say_nothing(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, CARDS)
    table = read_csv(ULB, "ID")
    table = table.iloc[np.argsort(numbers(table, "Time", "--time"), kind="stable")]
    old = tmp_path / "old.csv"
    table.iloc[: len(table) // 2].to_csv(old, index=False)
    with pytest.raises(CannotCompare, match="all 1,632 rows are old"):
        promote(tracking_uri, old)
    first = promote(tracking_uri, ULB)
    assert first.promoted
    assert f"on {len(table) - int(len(table) * 0.85):,} rows" in first.why


def test_a_challenger_must_be_better_than_the_champion(tracking_uri: str) -> None:
    assert register(tracking_uri, CARDS) == "1"
    first = promote(tracking_uri)
    assert first.promoted
    assert "fraud/1 is the first champion: ROC AUC" in first.why
    again = promote(tracking_uri)
    assert not again.promoted
    assert "already" in again.why

    assert register(tracking_uri, replace(CARDS, rounds=1, num_leaves=2)) == "2"
    weaker = promote(tracking_uri)
    assert not weaker.promoted
    assert "fraud/2 stays challenger: ROC AUC" in weaker.why
    assert weaker.figures["roc_auc_gain_high"] < 0
    champion = registry.locate("fraud@champion", tracking_uri)
    assert champion.name == "fraud/1"
    assert open_session(champion.path).contract.provenance.run_id

    # A weak champion gives way.
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri).set_registered_model_alias("fraud", "champion", "2")
    MlflowClient(tracking_uri).set_registered_model_alias("fraud", "challenger", "1")
    better = promote(tracking_uri)
    assert better.promoted
    assert "fraud/1 is the new champion" in better.why
    version = registry.find_version("fraud/1", tracking_uri)
    assert version.tags["promotion"] == better.why
    assert version.tags["promoted"] == "true"
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{version.run_id}/promotion", tracking_uri=tracking_uri))
    assert {path.name for path in report.iterdir()} == {"promotion.md", "promotion.png", "promotion.json"}
    assert "| ROC AUC |" in (report / "promotion.md").read_text()

    # Back, and back again; a version that is champion already, or that is not there, is no way.
    assert model_versions.roll_back(None, tracking_uri) == ("1", "2")
    assert model_versions.roll_back("1", tracking_uri) == ("2", "1")
    with pytest.raises(model_versions.RegistryError, match="already champion"):
        model_versions.roll_back("1", tracking_uri)
    with pytest.raises(ModelRefused, match="fraud/9"):
        model_versions.roll_back("9", tracking_uri)
    found = [(v["version"], v["aliases"]) for v in model_versions.versions(tracking_uri)]
    assert found == [("2", ""), ("1", "challenger, champion")]

    # A file that is not the registered one is refused; one that was changed in the cache is fetched again.
    champion.path.write_bytes(b"changed")
    assert registry.locate("fraud/1", tracking_uri).sha256 == champion.sha256
    MlflowClient(tracking_uri).set_model_version_tag("fraud", "1", "sha256", "0" * 64)
    with pytest.raises(ModelRefused, match="the registry says 0000"):
        registry.locate("fraud/1", tracking_uri)


@pytest.mark.parametrize("reference", ["fraud@nobody", "fraud/99", "other/1", "fraud"])
def test_what_is_not_registered_is_refused_by_name(reference: str, tracking_uri: str) -> None:
    with pytest.raises(ModelRefused, match=reference):
        registry.locate(reference, tracking_uri)


def test_an_unknown_run_is_named(tracking_uri: str) -> None:
    with pytest.raises(model_versions.RegistryError, match="no run abc"):
        publish.export_run("abc", tracking_uri)


def test_a_version_that_mlflow_itself_logged_is_served(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source is models:/m-...; of saker's it has the tag alone."""
    booster = train(read_csv(ULB, "ID"), CARDS).booster
    proven = saker.export_proven(booster, saker.contract_for(booster))
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("logged", artifact_location=str(tmp_path / "artifacts")))
    with mlflow.start_run():
        info = mlflow.onnx.log_model(proven.model, name="model", registered_model_name="other", save_as_external_data=False)
    client = MlflowClient(tracking_uri)
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri))
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    client.set_model_version_tag("other", "1", registry.SHA256_TAG, digest)
    assert client.get_model_version("other", "1").source.startswith("models:/m-")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing of it is in the cache
    located = registry.locate("other/1", tracking_uri)
    assert (located.name, located.sha256) == ("other/1", digest)
    assert open_session(located.path).proven


def test_mlflows_own_tools_take_the_registered_version(tracking_uri: str) -> None:
    exported = publish.export_run(log_run(train(read_csv(ULB, "ID"), CARDS), CARDS, {}, tracking_uri), tracking_uri)
    version = registry.find_version("fraud/1", tracking_uri)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source, tracking_uri=tracking_uri))
    assert {"parity.json", "model-card.md", "model.onnx", "input_example.json"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "parity.json").read_text())["passed"] is True
    assert "# Model card" in version.description
    assert mlflow.onnx.load_model(str(folder)).graph == exported.model.graph

    records, _ = run_artifacts.newest_rows(tracking_uri)
    session = open_session(folder / "model.onnx")
    rows = saker.Decoder(session.contract).decode(records[:20]).matrix
    # NaN is how a table holds what is missing; JSON has null for it.
    data = [[None if np.isnan(value) else value for value in row] for row in rows.tolist()]
    columns = [feature.name for feature in session.contract.features]
    server, port = Server("mlflow-model"), free_port()
    in_environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # it runs uvicorn by name
    try:
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", str(folder)]
        server.start([*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], in_environment)
        server.wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), timeout=120)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_split": {"columns": columns, "data": data}}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            predictions = json.load(answer)["predictions"]
    finally:
        server.stop()
    np.testing.assert_allclose([p["score"] for p in predictions], session.score(rows), rtol=1e-15)


def test_a_run_exported_twice_leaves_the_first_version_as_it_was(tracking_uri: str) -> None:
    assert register(tracking_uri, CARDS) == "1"
    assert publish.export_run("latest", tracking_uri).version == "2"
    for version in ("fraud/1", "fraud/2"):
        assert registry.locate(version, tracking_uri).path.exists()
