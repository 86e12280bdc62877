"""Evidently's drift report, in a separate environment: evidently_report.py REFERENCE.parquet CURRENT.parquet OUTPUT.html."""

import sys

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def main(reference: str, current: str, output: str) -> None:
    told = Report([DataDriftPreset()]).run(pd.read_parquet(current), pd.read_parquet(reference))
    told.save_html(output)


main(*sys.argv[1:])
