"""Errors of the native paths: unsupported models, which the reference path serves, and damaged ones, which are rejected."""


class Refused(Exception):
    """The tree kernel does not support a model; the message names the cause."""


class Damaged(Refused):
    """A model that cannot be scored at all: onnxruntime would not return."""
