from __future__ import annotations

from typing import Any

import pytest

from bench.kinds import KINDS


@pytest.fixture(scope="session")
def trained() -> Any:
    """Name -> model of that kind; trained once, and nobody changes it."""
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            models[name] = KINDS[name]()
        return models[name]

    return get
