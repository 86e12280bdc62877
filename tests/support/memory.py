"""How much memory this process holds, and how much more it may hold after work that gives everything back."""

from __future__ import annotations

import os
from pathlib import Path

# A sanitizer keeps freed memory for a while (quarantine_size_mb in the Makefile), so that its use is noticed.
ALLOWED_MB = 200 if "asan" in os.environ.get("LD_PRELOAD", "") else 4


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
