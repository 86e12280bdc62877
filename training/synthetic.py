"""Generated transactions in the schema of the IEEE-CIS files (joined: 434 columns).

Rows come in blocks, each with its own generator, so row i does not depend on the number of rows: a model trained on the
first 50,000 can be tested on later ones. Missing values, their blocks and the rates follow the real files'
published description; the values are invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

BLOCK = 5_000
FIRST_ID = 2_987_000
FRAUD_RATE = 0.035
_PER_WEEK = 22_750  # 590,540 transactions in 26 weeks
_WEEK = 7 * 86_400
#: Frauds that look like legitimate transactions, so that no model finds all of them.
_UNSEEN = 0.14

Floats = NDArray[np.float64]

# First and last V column, share of rows in which the whole block is missing, whether it holds amounts.
_V_BLOCKS = (
    (1, 11, 0.47, False),
    (12, 34, 0.13, False),
    (35, 52, 0.28, False),
    (53, 74, 0.13, False),
    (75, 94, 0.15, False),
    (95, 125, 0.01, False),
    (126, 137, 0.01, True),
    (138, 166, 0.86, False),
    (167, 201, 0.76, False),
    (202, 216, 0.76, True),
    (217, 262, 0.78, False),
    (263, 278, 0.78, True),
    (279, 305, 0.0, False),
    (306, 321, 0.0, True),
    (322, 330, 0.86, False),
    (331, 339, 0.86, True),
)
_D_MISSING = (0.002, 0.47, 0.44, 0.28, 0.52, 0.87, 0.93, 0.87, 0.87, 0.13, 0.47, 0.89, 0.89, 0.89, 0.15)
_MAIL = (
    "gmail.com",
    "yahoo.com",
    "hotmail.com",
    "anonymous.com",
    "aol.com",
    "outlook.com",
    "icloud.com",
    "protonmail.com",
)
_MAIL_WEIGHTS = (0.46, 0.20, 0.13, 0.07, 0.06, 0.04, 0.03, 0.01)
_MAIL_FRAUD = (0.44, 0.14, 0.15, 0.04, 0.03, 0.10, 0.04, 0.06)
# Of the id_ columns these are text; the value of each is one of these.
_ID_TEXT = {
    12: ("NotFound", "Found"),
    15: ("Found", "New", "Unknown"),
    16: ("Found", "NotFound"),
    23: ("IP_PROXY:TRANSPARENT", "IP_PROXY:ANONYMOUS", "IP_PROXY:HIDDEN"),
    27: ("Found", "NotFound"),
    28: ("Found", "New"),
    29: ("Found", "NotFound"),
    30: ("Windows 10", "Windows 7", "iOS 11.2.1", "Mac OS X 10_12_6", "Android 7.0", "Linux"),
    31: ("chrome 63.0", "mobile safari 11.0", "ie 11.0 for desktop", "safari generic", "firefox 57.0", "edge 16.0"),
    33: ("1920x1080", "1366x768", "1334x750", "2208x1242", "1440x900", "2436x1125"),
    34: ("match_status:2", "match_status:1", "match_status:0", "match_status:-1"),
    35: ("T", "F"),
    36: ("F", "T"),
    37: ("T", "F"),
    38: ("F", "T"),
}
_ID_MISSING = {
    3: 0.5,
    4: 0.5,
    7: 0.96,
    8: 0.96,
    14: 0.45,
    18: 0.69,
    21: 0.96,
    22: 0.96,
    23: 0.96,
    24: 0.97,
    25: 0.96,
    26: 0.96,
}
_DEVICES = ("Windows", "iOS Device", "MacOS", "Trident/7.0", "SM-J700M Build/MMB29K", "rv:11.0", "Moto G (4)")


@dataclass
class _Block:
    """Columns under construction: `risk` is what the features show of the fraud, `noise` the block's generator."""

    noise: Generator
    risk: Floats
    columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.risk)

    def missing(self, share: float) -> NDArray[np.bool_]:
        return self.noise.random(self.rows) < share

    def number(self, name: str, values: NDArray[np.floating], missing: float | NDArray[np.bool_] = 0.0) -> None:
        gone = self.missing(missing) if isinstance(missing, float) else missing
        self.columns[name] = np.where(gone, np.nan, values) if gone.any() else values

    def text(
        self,
        name: str,
        values: tuple[str, ...],
        weights: tuple[float, ...] | None = None,
        weights_of_fraud: tuple[float, ...] | None = None,
        missing: float | NDArray[np.bool_] = 0.0,
    ) -> None:
        steps = np.arange(len(values), 0, -1.0) ** 2
        usual = np.cumsum(weights or steps / steps.sum())
        drawn = self.noise.random(self.rows)
        code = np.searchsorted(usual, drawn * usual[-1], side="right")
        if weights_of_fraud:
            other = np.cumsum(weights_of_fraud)
            fraudulent = np.searchsorted(other, drawn * other[-1], side="right")
            code = np.where(self.risk > 0, fraudulent, code)
        chosen = np.array(values, object)[code]
        gone = self.missing(missing) if isinstance(missing, float) else missing
        chosen[gone] = None
        self.columns[name] = chosen


def frames(count: int, seed: int = 0, first: int = 0) -> Iterator[pd.DataFrame]:
    """Transactions `first` to `first + count - 1` of the stream with this seed, in order of time, block by block."""
    last = first + count
    for number in range(first // BLOCK, -(-last // BLOCK)):
        start = number * BLOCK
        yield _block(seed, number).iloc[max(first - start, 0) : last - start]


def frame(count: int, seed: int = 0, first: int = 0) -> pd.DataFrame:
    """`frames` in one table: `count` rows of 434 columns."""
    return pd.concat(list(frames(count, seed, first)), ignore_index=True)


def between(start: float, end: float) -> tuple[int, int]:
    """The first transaction of the stream with start <= TransactionDT < end, and how many there are (for `frames`)."""
    first, after = (_first_at(seconds) for seconds in (start, end))
    return first, after - first


def _first_at(seconds: float) -> int:
    low, high = 0, max(int((seconds / _WEEK + 2) * _PER_WEEK), 1)
    while low < high:
        middle = (low + high) // 2
        if _times(np.array([middle]))[0] < seconds:
            low = middle + 1
        else:
            high = middle
    return low


def _times(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seconds, ascending: a week's rows spread over it by the hour of the day and the day of the week."""
    hours = np.arange(168)
    rate = (1.1 + np.sin((hours % 24 - 10) / 24 * 2 * np.pi)) * np.where(hours // 24 >= 5, 0.75, 1.0)
    passed = np.concatenate([[0.0], np.cumsum(rate / rate.sum())])
    within = np.interp((rows % _PER_WEEK) / _PER_WEEK, passed, np.arange(169) * 3600.0)
    seconds: NDArray[np.int64] = (86_400 + rows // _PER_WEEK * _WEEK + within).astype(np.int64)
    return seconds


def _block(seed: int, number: int) -> pd.DataFrame:
    noise = np.random.default_rng([seed, number])
    rows = np.arange(number * BLOCK, (number + 1) * BLOCK)
    times = _times(rows)
    hour = times // 3600 % 24
    odds = np.where((hour >= 2) & (hour < 8), 2.2, 1.0)  # the small hours
    fraud = noise.random(BLOCK) < FRAUD_RATE * odds / 1.06
    seen = fraud & (noise.random(BLOCK) > _UNSEEN)
    risk = np.where(seen, noise.gamma(4.0, 0.25, BLOCK), 0.0)

    block = _Block(noise, risk)
    block.columns = {
        "TransactionID": FIRST_ID + rows,
        "isFraud": fraud.astype(np.int64),
        "TransactionDT": times,
    }
    _card(block)
    _counts_and_matches(block)
    _v_columns(block)
    _identity(block)
    return pd.DataFrame(block.columns)


def _card(block: _Block) -> None:
    noise, risk, rows = block.noise, block.risk, block.rows
    block.number("TransactionAmt", np.round(np.exp(noise.normal(4.2, 1.1, rows) + 0.35 * risk), 2))
    block.text("ProductCD", ("W", "C", "R", "H", "S"), (0.74, 0.12, 0.06, 0.06, 0.02), (0.44, 0.38, 0.06, 0.08, 0.04))
    block.number("card1", np.floor(1000 + 17_396 * noise.random(rows) ** 2))
    block.number("card2", np.floor(100 + 500 * noise.random(rows)), 0.015)
    block.number("card3", np.where(noise.random(rows) < 0.12 + 0.25 * np.minimum(risk, 1), 185.0, 150.0), 0.003)
    block.text("card4", ("visa", "mastercard", "american express", "discover"), (0.65, 0.32, 0.015, 0.015), missing=0.003)
    block.number("card5", np.floor(100 + 137 * noise.random(rows) ** 0.5), 0.007)
    block.text("card6", ("debit", "credit"), (0.75, 0.25), (0.52, 0.48), missing=0.003)
    block.number("addr1", np.floor(100 + 440 * noise.random(rows)), 0.11)
    block.number("addr2", np.where(noise.random(rows) < 0.99, 87.0, 60.0), 0.11)
    block.number("dist1", np.floor(noise.exponential(30, rows) * (1 + risk)), 0.6)
    block.number("dist2", np.floor(noise.exponential(80, rows)), 0.94)
    block.text("P_emaildomain", _MAIL, _MAIL_WEIGHTS, _MAIL_FRAUD, missing=0.16)
    block.text("R_emaildomain", _MAIL, _MAIL_WEIGHTS, _MAIL_FRAUD, missing=0.77)


def _counts_and_matches(block: _Block) -> None:
    noise, risk, rows = block.noise, block.risk, block.rows
    activity = noise.gamma(1.2, 1.0, rows) + 0.7 * risk
    for i in range(1, 15):
        block.number(f"C{i}", np.floor(activity * noise.exponential(1 + i % 4, rows)))
    for i, missing in enumerate(_D_MISSING, 1):
        days = np.floor(noise.exponential(120, rows) * np.exp(-0.6 * risk * (i % 3)))
        block.number(f"D{i}", days, missing)
    together = {1: block.missing(0.45), 5: block.missing(0.59), 7: block.missing(0.58)}
    groups = {1: 1, 2: 1, 3: 1, 5: 5, 6: 5, 7: 7, 8: 7, 9: 7}
    for i in range(1, 10):
        if i == 4:  # M4 is the one with three values
            block.text("M4", ("M0", "M2", "M1"), (0.6, 0.18, 0.22), (0.35, 0.5, 0.15), missing=0.48)
        else:
            block.text(f"M{i}", ("T", "F"), (0.7, 0.3), (0.5, 0.5), missing=together[groups[i]])


def _v_columns(block: _Block) -> None:
    noise, risk, rows = block.noise, block.risk, block.rows
    for first, last, share, amounts in _V_BLOCKS:
        width = last - first + 1
        # A block's columns are variations of one hidden quantity; every third one shows some of the risk.
        hidden = noise.gamma(1.0, 1.0, rows)[:, None]
        shown = 0.8 * risk[:, None] * (np.arange(width) % 3 == 0)
        values = (hidden + shown) * (0.5 + noise.random((rows, width), np.float32))
        values = np.round(values * 60, 1) if amounts else np.floor(values)
        values[block.missing(share)] = np.nan
        for at in range(width):
            block.columns[f"V{first + at}"] = values[:, at]


def _identity(block: _Block) -> None:
    noise, risk, rows = block.noise, block.risk, block.rows
    absent = block.noise.random(rows) > np.where(risk > 0, 0.5, 0.24)
    for i in range(1, 39):
        gone = absent | block.missing(_ID_MISSING.get(i, 0.03))
        if i in _ID_TEXT:
            block.text(f"id_{i:02}", _ID_TEXT[i], missing=gone)
        elif i == 1:
            block.number("id_01", -5.0 * np.floor(noise.exponential(2, rows) * (1 + risk)), gone)
        else:
            block.number(f"id_{i:02}", np.floor(noise.exponential(100 * i, rows)), gone)
    block.text("DeviceType", ("desktop", "mobile"), (0.6, 0.4), (0.4, 0.6), missing=absent)
    block.text("DeviceInfo", _DEVICES, missing=absent | block.missing(0.15))
