"""A LightGBM model file to a Booster. LightGBM ends the process on damaged ones, so it does not see a file first.

bytes --checked_text--> text: complete, UTF-8, and trees that `parse_model_text` takes
      --in a separate process--> LightGBM reads it and scores a row
      --> lightgbm.Booster
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from saker.engine.apart import NotDone, run_apart
from saker.export.errors import BrokenModel, ExportError
from saker.export.readers.lightgbm_text import parse_model_text

_log = logging.getLogger("saker.lightgbm")

_SECONDS, _BYTES_PER_SECOND = 60.0, 5_000_000
_CATEGORIES = "pandas_categorical:"


def open_model_file(path: Path) -> Any:
    """The `lightgbm.Booster` of a model file; raises `BrokenModel` for any other file, and what `parse_model_text` raises."""
    if not path.is_file():
        raise BrokenModel("model file", f"no such file: {path}")
    return open_model(path.read_bytes(), str(path))


def open_model(data: bytes, name: str) -> Any:
    """The same from the bytes of a file; `name` is for messages."""
    import lightgbm

    try:
        text = checked_text(data)
    except ExportError as error:
        raise type(error)(error.what, f"{name}: {str(error).removeprefix(f'{error.what}: ')}") from error
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "model.txt")
        copy.write_bytes(text.encode())
        try:
            run_apart("saker.export.readers.lightgbm_file", [str(copy)], _SECONDS + len(data) / _BYTES_PER_SECOND)
        except NotDone as error:
            message = f"{name}: LightGBM {lightgbm.__version__} cannot read it: {error}"
            raise BrokenModel("model file", message) from error
    # Its warnings of parameters of other releases would go to stdout, where commands print what other programs read.
    lightgbm.register_logger(_log)
    return lightgbm.Booster(model_str=text)


def checked_text(data: bytes) -> str:
    """The text of a complete model file, in UTF-8 and with LightGBM's line ends.

    Other line ends and Latin-1, from Windows, are converted. Raises `BrokenModel` for a truncated or different file, and what
    `parse_model_text` raises for its trees.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = text.replace("\r\n", "\n")
    if not text.startswith("tree\n"):
        raise BrokenModel("model file", f"expected LightGBM's text, which begins with a line 'tree', got {text[:20]!r}")
    try:
        parse_model_text(text)
    except (ValueError, IndexError, OverflowError) as error:
        raise BrokenModel("model text", f"it is damaged ({error})") from error
    trees, _, rest = text.partition("\nend of trees")
    starts = _starts(trees)
    header = trees[: starts[0]]
    sizes = next((line for line in header.split("\n") if line.startswith("tree_sizes=")), None)
    if sizes is not None:
        ends = [*starts[1:], len(trees) + 1]
        found = [len(text[start:end].encode()) for start, end in zip(starts, ends, strict=True)]
        if (said := sizes.removeprefix("tree_sizes=").split()) != [str(size) for size in found]:
            first = next((i for i, pair in enumerate(zip(said, found, strict=False)) if pair[0] != str(pair[1])), len(said))
            message = f"tree_sizes has {len(said)} trees, the file {len(found)}; tree {first} is not of the size that is said"
            raise BrokenModel("tree_sizes", f"{message}: it was cut or changed")
    if "\nparameters:" in rest and "\nend of parameters" not in rest:
        raise BrokenModel("parameters", "expected the line 'end of parameters'; the file was cut")
    for line in rest.split("\n"):
        if line.startswith(_CATEGORIES):
            try:
                json.loads(line.removeprefix(_CATEGORIES))
            except ValueError as error:
                raise BrokenModel("pandas_categorical", f"expected JSON, got {line[:60]!r} ({error})") from error
    return text


def _starts(trees: str) -> list[int]:
    """Where each tree begins; raises `BrokenModel` when one is missing."""
    starts: list[int] = []
    at = -1
    while (at := trees.find("\nTree=", at + 1)) >= 0:
        number = trees[at + 6 : trees.index("\n", at + 6)]
        if number != str(len(starts)):
            raise BrokenModel("trees", f"expected tree {len(starts)}, got tree {number}: the file was cut or changed")
        starts.append(at + 1)
    return starts


def main(path: str) -> None:
    import lightgbm

    booster = lightgbm.Booster(model_str=Path(path).read_text(encoding="utf-8"))
    booster.predict(np.zeros((1, booster.num_feature())), num_threads=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
