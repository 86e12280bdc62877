from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.errors import ModelRefused
from engine.session import open_session
from export import publish
from training.fit import Settings, train
from training.tables import read_csv
from training.track import log_run

CARDS = Settings(label="Class", time="Time", id_field="ID", rounds=60)
ULB = Path(__file__).parents[1] / "data" / "ulb_creditcard_sample.csv"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder}/mlflow.db"


def register(uri: str, settings: Settings) -> str:
    trained = train(read_csv(ULB, "ID"), settings)
    log_run(trained, settings, {"data": "cards"}, uri)
    return publish.export_run("latest", uri).version


def test_a_challenger_must_be_better_than_the_champion(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert register(uri, CARDS) == "1"
    rows = publish.newest_rows(uri)
    assert publish.promote(*rows, uri)[0]
    moved, why = publish.promote(*rows, uri)
    assert not moved
    assert "already" in why

    assert register(uri, replace(CARDS, rounds=1, num_leaves=2)) == "2"
    moved, why = publish.promote(*rows, uri)
    assert not moved
    assert "fraud/2 stays challenger: ROC AUC" in why
    champion = registry.locate("fraud@champion", uri)
    assert champion.name == "fraud/1"
    assert open_session(champion.path).contract.provenance.run_id

    # A weak champion gives way.
    from mlflow.tracking import MlflowClient

    MlflowClient(uri).set_registered_model_alias("fraud", "champion", "2")
    MlflowClient(uri).set_registered_model_alias("fraud", "challenger", "1")
    moved, why = publish.promote(*rows, uri)
    assert moved
    assert "fraud/1 is the new champion" in why

    # A file that is not the registered one is refused; one that was changed in the cache is fetched again.
    champion.path.write_bytes(b"changed")
    assert registry.locate("fraud/1", uri).sha256 == champion.sha256
    MlflowClient(uri).set_model_version_tag("fraud", "1", "sha256", "0" * 64)
    with pytest.raises(ModelRefused, match="the registry says 0000"):
        registry.locate("fraud/1", uri)


@pytest.mark.parametrize("reference", ["fraud@nobody", "fraud/99", "other/1", "fraud"])
def test_what_is_not_registered_is_refused_by_name(reference: str, uri: str) -> None:
    with pytest.raises(ModelRefused, match=reference):
        registry.locate(reference, uri)


def test_an_unknown_run_is_named(uri: Any) -> None:
    with pytest.raises(publish.RegistryError, match="no run abc"):
        publish.export_run("abc", uri)
