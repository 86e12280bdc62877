"""The client of the schema registry, against a real one and against servers that are broken or hostile."""

from __future__ import annotations

import json
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from saker.engine.config import RecordSettings
from saker.engine.errors import ServingError
from saker.engine.records.avro import parse_schema
from saker.engine.records.formats import UnknownSchema
from saker.engine.schema_registry import Registry, RegistryUnavailable, open_format, register_results
from tests.support.registry import breakable, register


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_schema_comes_back_by_its_id(registry: str) -> None:
    text = json.dumps({"type": "record", "name": "Here", "fields": [{"name": "a", "type": "int"}]})
    number = register(registry, "here-value", text)
    client = Registry(registry)
    assert parse_schema(client.get(number).text).fields[0][0] == "a"
    assert client.version("here-value", "latest")[0] == number
    with pytest.raises(UnknownSchema):
        client.get(123_456)
    with pytest.raises(UnknownSchema):
        client.version("not-there", "latest")


def test_a_schema_comes_back_by_its_guid(registry: str, caplog: pytest.LogCaptureFixture) -> None:
    number = register(registry, "guid-value", '"long"')
    guid = uuid.UUID(int=number)
    with breakable(registry) as proxy:
        client = Registry(proxy.url)
        alias = client.number_of(guid.bytes)
        assert alias is not None
        assert alias >= 2**31
        assert alias == client.number_of(guid.bytes)
        assert client.get(alias) == replace(Registry(registry).get(number), name=f"schema {guid}")
        absent = client.number_of(uuid.UUID(int=987_654).bytes)
        assert absent is not None
        with pytest.raises(UnknownSchema) as caught:
            client.get(absent)
        assert caught.value.name == f"schema {uuid.UUID(int=987_654)}"
        proxy.mode = "down"
        assert client.get(alias).text == '"long"'
        assert f"schema {guid} is the one of an earlier answer" in caplog.text
    for at in range(20_000):
        client.number_of(at.to_bytes(16, "big"))
    assert client.number_of(b"x" * 16) is None


def test_a_registry_that_fails_is_asked_the_cache(registry: str, caplog: pytest.LogCaptureFixture) -> None:
    number = register(registry, "kept-value", '"string"')
    with breakable(registry) as proxy:
        proxy.mode = "down"
        with pytest.raises(RegistryUnavailable, match="status 503, expected 200 with a schema"):
            Registry(proxy.url).get(number)
        proxy.mode = "up"
        schema = Registry(proxy.url).get(number)
        proxy.mode = "down"
        assert Registry(proxy.url).get(number) == schema
        assert f"schema {number} is the one of an earlier answer" in caplog.text
        proxy.mode = "denied"
        with pytest.raises(RegistryUnavailable, match="is the password in SAKER_REGISTRY_CONFIG right"):
            Registry(proxy.url).version("kept-value", "latest")


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_the_schema_of_results_is_registered_once(kind: str, registry: str, caplog: pytest.LogCaptureFixture) -> None:
    topic = f"scored-{kind}"
    assert register_results("json", None, topic).schema_id == 0
    with pytest.raises(ServingError, match="expected --output-registry URL"):
        register_results(kind, None, topic)
    first = register_results(kind, registry, topic)
    assert (first.format, Registry(registry).version(f"{topic}-value", "latest")[:2]) == (kind, (first.schema_id, 1))
    with breakable(registry) as proxy:
        proxy.mode = "down"
        with pytest.raises(RegistryUnavailable, match="status 503"):
            register_results(kind, proxy.url, topic)
        proxy.mode = "up"
        assert register_results(kind, proxy.url, topic) == first
        assert not any(path.endswith("/versions") for path in proxy.requests)  # whoever may read is enough by now
        proxy.mode = "down"
        assert register_results(kind, proxy.url, topic) == first
        assert f"results name schema {first.schema_id}, from an earlier answer" in caplog.text
        proxy.mode = "denied"
        with pytest.raises(RegistryUnavailable, match="is the password in SAKER_REGISTRY_CONFIG right"):
            register_results(kind, proxy.url, "another")


def test_a_topic_of_another_schema_is_an_error_that_says_so(registry: str) -> None:
    register(registry, "taken-value", '"string"')
    body = json.dumps({"compatibility": "BACKWARD"}).encode()
    change = urllib.request.Request(f"{registry}/config/taken-value", body, {"Content-Type": "application/json"}, method="PUT")
    urllib.request.urlopen(change, timeout=30).close()
    with pytest.raises(ServingError, match=r"taken-value/versions does not take the schema: .+"):
        register_results("avro", registry, "taken")


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ("basic.auth.user.info = user:pass:word", "Basic dXNlcjpwYXNzOndvcmQ="),
        ("# a comment\nbearer.auth.token = env:TOKEN", "Bearer secret"),
    ],
)
def test_who_asks_is_said(settings: str, header: str, registry: str, tmp_path: Path) -> None:
    file = tmp_path / "registry.properties"
    file.write_text(settings)
    number = register(registry, "auth-value", '"string"')
    with breakable(registry) as proxy:
        Registry(proxy.url, {"SAKER_REGISTRY_CONFIG": str(file), "TOKEN": "secret"}).get(number)
        assert proxy.headers["authorization"] == header


def test_a_proxy_is_used(registry: str, tmp_path: Path) -> None:
    number = register(registry, "proxied-value", '"string"')
    with breakable(registry) as proxy:
        file = tmp_path / "registry.properties"
        file.write_text(f"proxy.url = http://127.0.0.1:{proxy.server.server_port}")
        with pytest.raises(RegistryUnavailable):  # it does not forward, and that it was asked is enough
            Registry("http://registry.invalid:8081", {"SAKER_REGISTRY_CONFIG": str(file)}).get(number)
        assert proxy.requests[-1].startswith("http://registry.invalid:8081/schemas/ids/")


@pytest.fixture
def liar() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server that answers with what the test says, by the end of the path."""
    answers: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = next((body for end, body in answers.items() if self.path.endswith(end)), b"")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(302 if self.path.endswith("/302") else 200)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


def test_references_come_with_a_schema_and_in_order(liar: tuple[str, dict[str, Any]]) -> None:
    url, answers = liar
    of = {"name": "x", "subject": "a b", "version": 3}
    answers["/schemas/ids/1"] = {"schema": "1", "references": [of, {"name": "y", "subject": "c", "version": 1}]}
    answers["/subjects/a%20b/versions/3"] = {"schema": "2", "references": [{"name": "z", "subject": "c", "version": 1}]}
    answers["/subjects/c/versions/1"] = {"schema": "3"}
    schema = Registry(url).get(1)
    assert (schema.text, schema.references, schema.kind) == ("1", ("3", "2"), "avro")


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[]", b"nonsense", b"[" * 100_000, {"schema": 7}, {"schema": "x", "references": [1]},
        {"schema": "x", "references": [{"subject": "s", "version": "one"}]}, {"schema": "x", "schemaType": 3},
        b'{"schema":"' + b"x" * 6_000_000 + b'"}',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_no_schema(answer: Any, liar: tuple[str, dict[str, Any]]) -> None:
    url, answers = liar
    answers["/1"] = answer
    with pytest.raises(RegistryUnavailable):
        Registry(url).get(1)


def test_references_in_a_circle_end(liar: tuple[str, dict[str, Any]]) -> None:
    url, answers = liar
    circle = {"schema": "x", "references": [{"subject": "s", "version": 1}]}
    answers |= {"/1": circle, "/subjects/s/versions/1": circle}
    with pytest.raises(RegistryUnavailable, match="a circle"):
        Registry(url).get(1)


def test_a_redirect_is_not_followed(liar: tuple[str, dict[str, Any]]) -> None:
    """A password would go with it."""
    with pytest.raises(RegistryUnavailable, match="status 302"):
        Registry(liar[0]).get(302)


def test_no_server_at_all() -> None:
    with pytest.raises(RegistryUnavailable, match=r"http://127\.0\.0\.1:1 does not answer"):
        Registry("http://127.0.0.1:1").get(1)


@pytest.mark.parametrize("url", ["registry:8081", "ftp://registry", "https://user:secret@registry", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ServingError, match="expected a URL such as https://registry:8081 without a user") as refused:
        Registry(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (RecordSettings("avro"), "expected --registry URL, or --schema FILE"),
        (RecordSettings("avro", "http://r", Path("x")), "expected --registry or --schema, got both"),
        (RecordSettings("json", None, Path("x")), "JSON needs no schema"),
        (RecordSettings("avro", None, Path("/not/there")), "cannot read /not/there"),
        (RecordSettings("protobuf", "http://r", None, "a.B"), "--message: expected with --schema FILE"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(records: RecordSettings, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        open_format(records)
