"""TLS and SASL from a file: what may stand in it, and that no secret is ever printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from saker.engine.errors import ServingError
from saker.engine.kafka.security import VARIABLE, for_kafka_python, security


def settings(folder: Path, text: str, **environment: str) -> dict[str, str]:
    (folder / "kafka.properties").write_text(text)
    return security({VARIABLE: str(folder / "kafka.properties"), **environment})


def test_nothing_is_set_without_the_variable() -> None:
    assert security({}) == {}


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p=a:b\n")
    text = f"# ours\n\nsecurity.protocol = SASL_SSL\nsasl.mechanism = PLAIN\nsasl.password=file:{tmp_path}/password\n"
    text += "sasl.username = env:NAME\n"
    found = settings(tmp_path, text, NAME="alice")
    same = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
    assert found == same | {"sasl.password": "p=a:b", "sasl.username": "alice"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bootstrap.servers = hidden", "line 1: expected NAME = VALUE with a name that begins with security.protocol"),
        ("\nsasl.password", "line 2: expected NAME = VALUE"),
        ("sasl.password = env:MISSING", "sasl.password: environment variable MISSING is not set"),
        ("security.protocol = env:SECRET", r"librdkafka rejects these settings: .*\.\.\.\" for configuration property"),
        ("ssl.endpoint.identification.algorithm = env:SECRET", "librdkafka rejects these settings"),
        ("security.protocol = SSL\nssl.ca.location = env:SECRET", "librdkafka rejects these settings"),
        ("sasl.password = file:/nowhere/hidden", "sasl.password: cannot read /nowhere/hidden"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ServingError, match=told) as raised:
        settings(tmp_path, text, **{"SECRET": "4711-hidden"})
    assert "= hidden" not in str(raised.value)
    assert "4711" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"SAKER_KAFKA_CONFIG: cannot read .*gone: No such file"):
        security({VARIABLE: str(tmp_path / "gone")})


def test_kafka_python_has_the_same_or_nothing() -> None:
    given = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "a", "sasl.password": "b"}
    assert for_kafka_python(given) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "a",
        "sasl_plain_password": "b",
    }
    assert for_kafka_python({}) == {}
    assert for_kafka_python({"sasl.oauthbearer.config": "x"}) is None
