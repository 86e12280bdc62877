"""Evidently's drift report. It needs another pandas, so it runs in a separate environment."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saker import training
from saker.deploy.local.environment import run_in
from saker.engine.contract import Contract
from saker.engine.history.table_history import history_of
from saker.engine.model import registry
from saker.engine.records.decode import Decoder
from saker.export.registry import run_artifacts

_TRAINING = Path(training.__file__ or "").parent


def write_report(name: str, contract: Contract, matrix: NDArray[np.float32], output: Path, tracking_uri: str) -> None:
    """The live rows `matrix` (n, f) against the newest labelled rows of the version's own run; name: fraud/7."""
    reference, _ = run_artifacts.labelled_records(registry.find_version(name, tracking_uri).run_id, tracking_uri)
    columns = [feature.name for feature in contract.features]
    then = Decoder(contract, history=history_of(contract)).decode(reference).matrix
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{part}.parquet" for part in ("reference", "current")]
        for path, rows in zip(paths, (then, matrix), strict=True):
            pd.DataFrame(rows, columns=columns).to_parquet(path)
        run_in(_TRAINING / "evidently.txt", _TRAINING / "evidently_report.py", *paths, output.absolute())
