"""What is installed: saker, and what its scores and its speed depend on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import saker

_PACKAGES = ("lightgbm", "onnxruntime", "numpy", "confluent-kafka", "onnx", "onnxmltools", "mlflow")


def installed() -> Iterator[str]:
    """A line each: name and version."""
    from saker.engine import kernels
    from saker.engine.kafka.librdkafka_handle import librdkafka_version

    yield f"saker {saker.__version__}"
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not installed"
    yield f"librdkafka {librdkafka_version()}"
    extension, reason = kernels.native(kernels.mode_of())
    yield f"kernels {', '.join(extension.variants())}" if extension else f"kernels not in use: {reason}"
