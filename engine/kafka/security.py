"""TLS and SASL settings of every Kafka client of saker: from one file, named by an environment variable.

    # kafka.properties, named by SAKER_KAFKA_CONFIG
    security.protocol = SASL_SSL
    sasl.mechanism = SCRAM-SHA-512
    sasl.username = fraud
    sasl.password = file:/run/secrets/kafka-password
    ssl.ca.location = /etc/kafka/ca.pem

Names are librdkafka's. A value `file:PATH` is the content of that file, `env:NAME` that of a variable. No value is printed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from saker.engine.errors import ServingError

VARIABLE = "SAKER_KAFKA_CONFIG"
_ALLOWED = ("security.protocol", "sasl.", "ssl.", "enable.sasl.", "enable.ssl.", "https.")


def security(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Settings for a client of confluent_kafka; none without the variable. Raises `ServingError` for a file that is not so."""
    name = environment.get(VARIABLE)
    if not name:
        return {}
    path, settings = Path(name), {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ServingError(f"{VARIABLE}: cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        key, separator, value = (part.strip() for part in line.partition("="))
        if not line.strip() or key.startswith("#"):
            continue
        if not separator or not key.startswith(_ALLOWED):
            raise ServingError(
                f"{path}, line {number}: expected NAME = VALUE with a name that begins with {', '.join(_ALLOWED)}; "
                "all other settings are command options"
            )
        settings[key] = _secret(value, f"{path}, line {number}: {key}", environment)
    _try(name, tuple(settings.items()))
    return settings


@cache
def _try(path: str, settings: tuple[tuple[str, str], ...]) -> None:
    """librdkafka prints a value that it rejects. Try the settings here first and report its message without the values."""
    try:
        AdminClient({**dict(settings), "log_level": 0})
    except KafkaException as error:
        told = error.args[0].str()
        for _, value in settings:
            told = told.replace(value, "...") if value else told
        raise ServingError(f"{path}: librdkafka rejects these settings: {told}") from None


def _secret(value: str, where: str, environment: Mapping[str, str]) -> str:
    kind, _, name = value.partition(":")
    if kind == "env":
        if name not in environment:
            raise ServingError(f"{where}: environment variable {name} is not set")
        return environment[name]
    if kind == "file":
        try:
            return Path(name).read_text().strip()
        except OSError as error:
            raise ServingError(f"{where}: cannot read {name}: {error.strerror}") from error
    return value


def for_kafka_python(settings: Mapping[str, str]) -> dict[str, str] | None:
    """The same for a client of kafka-python; None where it has no such thing."""
    names = {
        "security.protocol": "security_protocol",
        "sasl.mechanism": "sasl_mechanism",
        "sasl.mechanisms": "sasl_mechanism",
        "sasl.username": "sasl_plain_username",
        "sasl.password": "sasl_plain_password",
        "ssl.ca.location": "ssl_cafile",
        "ssl.certificate.location": "ssl_certfile",
        "ssl.key.location": "ssl_keyfile",
        "ssl.key.password": "ssl_password",
    }
    return {names[key]: value for key, value in settings.items()} if settings.keys() <= names.keys() else None
