"""TLS and SASL settings of every Kafka client of saker: from one file, named by an environment variable.

    # kafka.properties, named by SAKER_KAFKA_CONFIG
    security.protocol = SASL_SSL
    sasl.mechanism = SCRAM-SHA-512
    sasl.username = fraud
    sasl.password = file:/run/secrets/kafka-password
    ssl.ca.location = /etc/kafka/ca.pem

Names are librdkafka's; values as in `saker.engine.properties`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from saker.engine.errors import ServingError
from saker.engine.properties import read_properties

VARIABLE = "SAKER_KAFKA_CONFIG"
_ALLOWED = ("security.protocol", "sasl.", "ssl.", "enable.sasl.", "enable.ssl.", "https.")


def security(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Settings for a client of confluent_kafka; none without the variable. Raises `ServingError` for a file that is not so."""
    settings = read_properties(VARIABLE, _ALLOWED, environment)
    if settings:
        _try(environment[VARIABLE], tuple(settings.items()))
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
