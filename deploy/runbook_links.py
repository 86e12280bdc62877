"""Where the alerts in alerts.yml link to: `make generated RUNBOOK=https://docs.example.com/operate/runbook/`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ALERTS = Path(__file__).with_name("prometheus") / "alerts.yml"
#: The page in the repository, for teams that do not host the documentation.
RUNBOOK = "docs/operate/runbook.md"


def linked(alerts: str, runbook: str = RUNBOOK) -> str:
    """`alerts` with each `runbook_url` pointing into the page `runbook`."""
    return re.sub(r"(runbook_url: )\S*#", lambda found: f"{found[1]}{runbook}#", alerts)


if __name__ == "__main__":
    ALERTS.write_text(linked(ALERTS.read_text(), *sys.argv[1:]))
