from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local.stack import local_kafka


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """One real broker for the session; each test uses topics of its own on it."""
    with local_kafka() as address:
        yield address
