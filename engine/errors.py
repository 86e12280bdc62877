"""Errors that a user can act on. The command line prints them as one line; everything else is a bug."""


class SakerError(Exception):
    """Something expected went wrong; the message says what was expected, what came and what to do."""


class ModelRefused(SakerError):
    """The file is no model that this version can score exactly."""


class ServingError(SakerError):
    """Kafka, a topic or a setting does not allow serving."""


class RestartWorker(Exception):
    """A worker cannot go on, and one that starts again at the committed offsets can: nothing is lost."""


class ReadAgain(RestartWorker):
    """All that is not committed is to be read again: by this worker, or by one that starts again."""


class Fenced(ServingError):
    """Another member of the group has this worker's name: another pool's, or what it was itself before the broker went away."""
