"""Pictures of the terminal for the README, from a real run: `make pictures`.

Runs `saker demo`, keeps the end of what it prints, and takes one view of `saker top` while the demo replays.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from saker.bench.page import IMAGES
from saker.commands.top import views
from saker.engine.errors import SakerError
from saker.engine.metrics.reading import read

_WIDTH, _LINES = 108, 22
_THEME = TerminalTheme(
    (16, 42, 48),
    (226, 236, 238),
    [(16, 42, 48), (232, 116, 97), (126, 202, 156), (233, 196, 106), (127, 180, 222), (205, 160, 220), (127, 208, 222),
     (226, 236, 238)],
)  # fmt: skip


def picture(shown: RenderableType, title: str, path: Path) -> None:
    """`shown` as an SVG of a terminal."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - the console prints as well as records
        console = Console(record=True, width=_WIDTH, file=nowhere, force_terminal=True)
        console.print(shown)
    text = console.export_svg(title=title, theme=_THEME, unique_id=path.stem)
    # The page must need no network: a terminal's font of the system is as good.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL))


def main() -> None:
    command = [sys.executable, "-m", "saker", "demo"]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        for line in demo.stdout or ():
            sys.stdout.write(line)
            lines.append(line.rstrip())
            if found := re.search(r"metrics at (http://\S+)", line):
                while not read(found[1]).sum("scored_transactions_total"):
                    time.sleep(0.2)
                time.sleep(2)  # a rate that is no longer that of the first moment
                picture(next(views(found[1], 2)), "saker top", IMAGES / "top.svg")
    if demo.returncode:
        raise SakerError(f"saker demo ended with {demo.returncode}; see above")
    picture(Text("\n".join(["$ make demo", "...", *lines[-_LINES:]])), "make demo", IMAGES / "demo.svg")


if __name__ == "__main__":
    main()
