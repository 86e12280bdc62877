"""What the exporter refuses, and whose fault it is.

All of them are about the model that was handed in: nothing here is retried, nothing is logged and passed over.
"""

from saker.engine.errors import SakerError


class ExportError(SakerError):
    """A model that cannot be exported. `what` is a stable name for code, the message is for people."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(f"{what}: {message}")
        self.what = what


class UnsupportedModel(ExportError):
    """The model is sound, but ONNX cannot express exactly what it computes, or this is not proven."""


class BrokenModel(ExportError):
    """The model contradicts itself: a truncated file, a child that does not exist, arrays of different lengths."""


class ParityError(ExportError):
    """An exported model does not score as the library does: nothing of it is written or registered."""
