"""Errors that a user can act on. The command line prints them as one line; everything else is a bug."""


class SakerError(Exception):
    """An expected error; its message has what was expected, what came and what to do."""


class ModelRefused(SakerError):
    """The file is no model that this version can score exactly."""


class ServingError(SakerError):
    """Kafka, a topic or a setting does not allow serving."""


class HistoryMissing(ServingError):
    """Records that velocity features need are deleted, or their keys are split among partitions."""


class RestartWorker(Exception):
    """A worker cannot continue, but can after a restart at the committed offsets. Nothing is lost."""


class ReadAgain(RestartWorker):
    """Everything uncommitted must be read again, by this worker or after its restart."""


class Fenced(ServingError):
    """Another member of the group has the name of this worker: of another pool, or itself before the broker went away."""
