"""A pool on a broker that takes nobody without TLS and SASL; and models that must be signed."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from saker.deploy.local.kafka import Broker
from saker.deploy.local.server import free_port
from saker.deploy.local.stack import RAW, REJECTED, SCORED, create_topics
from saker.engine.kafka.reader import read_topic
from saker.engine.kafka.security import VARIABLE
from tests.support.produce import send
from tests.support.serving import Serving

MODULE = "org.apache.kafka.common.security"
MECHANISMS = {
    "PLAIN": f'{MODULE}.plain.PlainLoginModule required user_alice="secret-4711";',
    "SCRAM-SHA-256": f"{MODULE}.scram.ScramLoginModule required;",
    "OAUTHBEARER": f'{MODULE}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
}
CLIENT = {
    "PLAIN": "sasl.username = alice\nsasl.password = env:KAFKA_PASSWORD",
    "SCRAM-SHA-256": "sasl.username = alice\nsasl.password = env:KAFKA_PASSWORD",
    "OAUTHBEARER": "enable.sasl.oauthbearer.unsecure.jwt = true\nsasl.oauthbearer.config = principal=alice",
}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key with its own certificate for 127.0.0.1, as Kafka reads it, and the certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "saker-test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = made.public_bytes(serialization.Encoding.PEM)
    (folder / "broker.pem").write_bytes(private + public)
    (folder / "ca.pem").write_bytes(public)
    return folder / "broker.pem", folder / "ca.pem"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a broker's SASL_SSL listener, and a folder with a file of settings for each mechanism."""
    folder = tmp_path_factory.mktemp("secure")
    keys, ca = certificate(folder)
    handler = "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
    settings: dict[str, str] = {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class": handler,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keys),
    }
    for mechanism, jaas in MECHANISMS.items():
        settings[f"listener.name.sasl_ssl.{mechanism.lower()}.sasl.jaas.config"] = jaas
        text = f"security.protocol = SASL_SSL\nsasl.mechanism = {mechanism}\nssl.ca.location = {ca}\n{CLIENT[mechanism]}\n"
        (folder / mechanism).write_text(text)
    broker = Broker(settings=settings, scram="SCRAM-SHA-256=[name=alice,password=secret-4711]")
    broker.listeners = [f"SASL_SSL://{broker.bootstrap_servers}", f"PLAINTEXT://127.0.0.1:{free_port()}"]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KAFKA_PASSWORD", "secret-4711")
            patch.setenv(VARIABLE, str(folder / "PLAIN"))
            broker.launch()
            broker.wait()
        yield broker.bootstrap_servers, folder
    finally:
        broker.stop()


@pytest.mark.parametrize("mechanism", list(MECHANISMS))
def test_a_pool_serves_through_tls_and_sasl(
    mechanism: str, secure: tuple[str, Path], cards_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = secure
    monkeypatch.setenv("KAFKA_PASSWORD", "secret-4711")
    monkeypatch.setenv(VARIABLE, str(folder / mechanism))
    suffix = f"-{mechanism}"
    create_topics(address, 4, suffix)
    command = [sys.executable, "-m", "saker", "serve", "--model", str(cards_model.path), "--metrics-port", "0"]
    command += ["--input", RAW + suffix, "--output", SCORED + suffix, "--rejected", REJECTED + suffix]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen([*command, "--bootstrap-servers", address], stderr=log)
        try:
            records = cards_model.trained.records[:200]
            send(address, RAW + suffix, [{"value": record, "partition": n % 4} for n, record in enumerate(records)])
            results = read_topic(address, SCORED + suffix, len(records))
            assert {orjson.loads(r.value or b"")["ID"] for r in results} == {orjson.loads(r)["ID"] for r in records}
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        assert "4711" not in log.read()


def saker(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "saker", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_only_signed_models_are_served(cards_model: Any, serve: Any, tmp_path: Path) -> None:
    for name in ("ours", "other"):
        key = Ed25519PrivateKey.generate()
        (tmp_path / f"{name}.pem").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (tmp_path / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    file = Path(shutil.copy(cards_model.path, tmp_path / "fraud.onnx"))
    options = ["--public-key", str(tmp_path / "ours.pub")]

    def refused() -> str:
        serving: Serving = serve(str(file), ready=False, options=options)
        line = serving.await_line("saker: model fraud/")
        assert serving.process.wait(60) == 1
        return line

    assert "it has none: `saker models sign`" in refused()
    assert "signed fraud/" in saker("models", "sign", file, "--key", tmp_path / "other.pem").stdout
    assert "its signature is not one of this file" in refused()
    assert "signed fraud/" in saker("models", "sign", file, "--key", tmp_path / "ours.pem").stdout
    assert serve(str(file), options=options).stop() == 0
    assert "expected an Ed25519 private key" in saker("models", "sign", file, "--key", tmp_path / "ours.pub").stderr


def test_a_model_is_put_in_the_place_of_another_only_when_it_is_one(
    cards_model: Any, generated_model: Any, tmp_path: Path
) -> None:
    over = tmp_path / "fraud.onnx"
    assert "is" in saker("models", "switch", cards_model.path, "--over", over).stdout
    assert over.read_bytes() == cards_model.path.read_bytes()
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert saker("models", "switch", tmp_path / "broken.onnx", "--over", over).returncode == 1
    told = saker("models", "switch", generated_model.path, "--over", over)
    assert told.returncode == 1
    assert "identifies a transaction by TransactionID" in told.stderr
    assert over.read_bytes() == cards_model.path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.onnx", "fraud.onnx"]
