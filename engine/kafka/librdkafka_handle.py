"""The librdkafka that confluent_kafka brought into this process, and its clients' own handles there."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from saker.engine.kafka.clients import Consumer, Producer


def library() -> str:
    """The file that is loaded; raises OSError where there is none."""
    for line in _maps():
        path = line.split(maxsplit=5)[5:]
        if path and "librdkafka" in os.path.basename(path[0]):  # noqa: PTH119 - of one word
            return path[0]
    raise OSError("no librdkafka is loaded")


def handle(client: Consumer | Producer) -> int:
    """Its rd_kafka_t, which stands first in the object (struct Handle of confluent_kafka.h); raises ValueError if it cannot."""
    address = ctypes.c_uint64.from_address(id(client) + object.__basicsize__).value
    for line in _maps():
        area, permissions = line.split(maxsplit=2)[:2]
        begin, end = (int(bound, 16) for bound in area.split("-"))
        if begin <= address < end and permissions.startswith("rw"):
            return address
    raise ValueError("no memory of its own where its handle should be")


def _maps() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()
