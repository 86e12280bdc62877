"""Where each of saker's processes logs to."""

from __future__ import annotations

import logging
import sys


def log_to_stderr() -> None:
    """Log to stderr with the time: saker from INFO on, other packages from WARNING on."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("saker").setLevel(logging.INFO)
