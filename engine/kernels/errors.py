"""What the native paths do not take. The reference path serves instead, and says why; what is damaged nobody serves."""


class Refused(Exception):
    """A model that the tree kernel does not take; the message names what it met."""


class Damaged(Refused):
    """A model that nobody can score: onnxruntime would not return."""
