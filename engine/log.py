"""Where each of saker's processes logs to."""

from __future__ import annotations

import logging
import sys


def log_to_stderr() -> None:
    """With the time; what saker itself says from INFO on, of others warnings."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("saker").setLevel(logging.INFO)
