"""What the native paths do not take. Never an end: the reference path serves instead, and says why."""


class Refused(Exception):
    """A model that the tree kernel does not take; the message names what it met."""
