"""TLS and SASL, as every Kafka client of saker gets them: from one file, which an environment variable names.

    # kafka.properties, named by SAKER_KAFKA_CONFIG
    security.protocol = SASL_SSL
    sasl.mechanism = SCRAM-SHA-512
    sasl.username = fraud
    sasl.password = file:/run/secrets/kafka-password
    ssl.ca.location = /etc/kafka/ca.pem

Names are librdkafka's. A value may be `file:PATH`, then it is what stands in that file, or `env:NAME`. None is ever printed.
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
        raise ServingError(f"{VARIABLE} names {path}, which cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        key, separator, value = (part.strip() for part in line.partition("="))
        if not line.strip() or key.startswith("#"):
            continue
        if not separator or not key.startswith(_ALLOWED):
            raise ServingError(
                f"{path}, line {number}: expected NAME = VALUE with a name that begins with {', '.join(_ALLOWED)}; "
                "everything else is an option of the command"
            )
        settings[key] = _secret(value, f"{path}, line {number}: {key}", environment)
    _try(name, tuple(settings.items()))
    return settings


@cache
def _try(path: str, settings: tuple[tuple[str, str], ...]) -> None:
    """librdkafka prints the value that it does not take: so it is asked here first, and its words are told without values."""
    try:
        AdminClient({**dict(settings), "log_level": 0})
    except KafkaException as error:
        told = error.args[0].str()
        for _, value in settings:
            told = told.replace(value, "...") if value else told
        raise ServingError(f"{path}: librdkafka does not take these settings: {told}") from None


def _secret(value: str, where: str, environment: Mapping[str, str]) -> str:
    kind, _, name = value.partition(":")
    if kind == "env":
        if name not in environment:
            raise ServingError(f"{where} is to come from the environment variable {name}, which is not set")
        return environment[name]
    if kind == "file":
        try:
            return Path(name).read_text().strip()
        except OSError as error:
            raise ServingError(f"{where} is to come from {name}, which cannot be read: {error.strerror}") from error
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
