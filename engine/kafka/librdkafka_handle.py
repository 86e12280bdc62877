"""The librdkafka that confluent_kafka brought into this process, and the handles of its clients there.

librdkafka announces each client to its plugins, in the thread that makes the client. The extension is such a plugin, so it
learns every handle from librdkafka itself, without reading the memory of confluent_kafka's objects. See DESIGN.md.
"""

from __future__ import annotations

import sys
from typing import NewType

import confluent_kafka
from confluent_kafka import cimpl

from saker.engine.kernels import Native

#: Address of an rd_kafka_t; 0 where the client was made without the plugin.
ClientHandle = NewType("ClientHandle", int)

#: Series of confluent-kafka that the native transport was tested with. With others saker uses the public calls.
TESTED_SERIES = ("2.16",)


def why_not_native() -> str:
    """Why the native transport does not run on the installed confluent-kafka; empty where it does."""
    version = confluent_kafka.__version__
    if version.rpartition(".")[0] in TESTED_SERIES:
        return ""
    return f"confluent-kafka {version} is installed, and it was tested with {', '.join(TESTED_SERIES)} only"


def librdkafka_version() -> str:
    return str(confluent_kafka.libversion()[0])


def plugin_settings(native: Native) -> dict[str, str]:
    """What a client of a native transport needs in its configuration; raises OSError where librdkafka lacks a function."""
    native.open_librdkafka(cimpl.__file__)
    return {"plugin.library.paths": native.__file__}


def newest_handle() -> ClientHandle:
    """Of the client that this thread has just made."""
    extension = sys.modules.get("saker.engine.kernels._native")
    return ClientHandle(extension.last_client() if extension is not None else 0)
