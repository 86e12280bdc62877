"""The native paths: trees, rows and Kafka in C. `native()` loads them, or gives the reason for the reference paths."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Protocol, cast

from saker.engine.errors import ServingError

if TYPE_CHECKING:
    from saker.engine.kernels import _native

ENVIRONMENT = "SAKER_KERNELS"
MODES = ("auto", "off")


class Values(Protocol):
    """A batch of raw records: a list, or whatever hands them out by their place. None is a record without a value."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: int, /) -> bytes | None: ...


class Native(Protocol):
    """The extension as a module; _native.pyi documents its functions."""

    __file__: str
    Plan: type[_native.Plan]
    Program: type[_native.Program]
    Decoder: type[_native.Decoder]
    Results: type[_native.Results]
    MessageBatch: type[_native.MessageBatch]
    ConsumerQueue: type[_native.ConsumerQueue]
    ResultProducer: type[_native.ResultProducer]
    FastPath: type[_native.FastPath]

    def variants(self) -> list[_native.Variant]: ...
    def encode(self, *arguments: object) -> _native.Results: ...
    def too_deep(self, data: bytes, most: int, /) -> int: ...

    VelocityPlan: type[_native.VelocityPlan]
    VelocityState: type[_native.VelocityState]

    def velocity_apply(self, *arguments: object) -> None: ...
    def identity(self, key: bytes, data: bytes, /) -> bytes: ...
    def hash_key(self) -> tuple[int, int, int]: ...
    def open_librdkafka(self, path: str, /) -> None: ...
    def last_client(self) -> int: ...


def mode_of(asked: str | None = None) -> str:
    """`auto` or `off`: the given word, or SAKER_KERNELS, or auto. Raises `ServingError` for any other word."""
    mode = asked or os.environ.get(ENVIRONMENT) or "auto"
    if mode not in MODES:
        raise ServingError(f"--kernels or {ENVIRONMENT}: expected {' or '.join(MODES)}, got {mode!r}")
    return mode


def native(mode: str) -> tuple[Native | None, str]:
    """The extension, or None and why it is not used."""
    if mode == "off":
        return None, "kernels are off"
    try:
        return cast("Native", importlib.import_module("saker.engine.kernels._native")), ""
    except ImportError as error:
        return None, f"the native kernels are not installed ({error}); see engine/kernels/build.py"
