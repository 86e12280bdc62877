"""Generated card payments whose fraud shows in behaviour over time, and hardly in a single payment.

Customers pay with their cards, each with usual amounts, hours and a device; some have shopping sprees, share a device or buy a
new one. Three kinds of fraud lie among them, each a series of payments:

- burst: a stolen card pays 3 to 8 times within the hour, with amounts that are usual among all customers;
- testing: 2 to 5 small amounts show that a card works, then one or two large ones follow;
- farm: one device pays with 4 to 12 cards, minutes apart.

A tenth of the series is a single payment, and a third is paid with the customer's own device (a stolen account). Small amounts,
new devices, bursts and quick payments also occur without fraud. So a model without the past finds few frauds, and one with it
not all of them.

The payments are in order of time, and a function of their number and the seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

#: Velocity features for these payments, all of them by the card, which is the key of the topic.
FEATURES = Path(__file__).with_name("behaviour.toml")
START = 1_700_000_000  # of the first payment, in seconds since 1970
_DAY = 86_400
_PER_CARD = 60  # payments
_PER_DAY = 1_500
_FRAUD = 0.02
_TAKEN_OVER = 0.4  # of the stolen cards
_SPREES, _NEW_DEVICES, _SMALL, _ONLINE, _SHARED_DEVICES = 0.2, 0.1, 0.05, 0.4, 0.15  # shares of payments, and of customers
_SPREE_SECONDS, _FRAUD_SECONDS = 240, 420  # between two payments, on average
#: Of the series of a kind of fraud: at least, and less than.
_LENGTHS = {"burst": (3, 9), "testing": (3, 8), "farm": (4, 13), "single": (1, 2)}
_SHOPS = ("grocery", "fuel", "restaurant", "clothes", "travel", "digital", "electronics", "pharmacy")
_SHOP_WEIGHTS = (0.27, 0.12, 0.17, 0.12, 0.05, 0.13, 0.06, 0.08)

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Series(NamedTuple):
    """Payments (n,) that belong together."""

    time: Floats
    card: Numbers
    device: Numbers
    amount: Floats
    shop: Numbers

    def first(self, n: int) -> _Series:
        return _Series(self.time[:n], self.card[:n], self.device[:n], self.amount[:n], self.shop[:n])


def payments(count: int, seed: int = 0) -> pd.DataFrame:
    """Columns id, time (seconds), card, device, shop, amount, is_online, is_fraud: `count` rows in order of time."""
    random = np.random.default_rng([seed, count])
    cards = max(count // _PER_CARD, 20)
    days = max(count / _PER_DAY, 1.0)
    usual = random.normal(3.4, 0.6, cards)  # log of the amount
    own_device = np.where(random.random(cards) < _SHARED_DEVICES, random.integers(0, cards, cards), np.arange(cards))
    parts = [_customers(random, count - int(count * _FRAUD), cards, days, usual, own_device)]
    fraud = 0
    while fraud < int(count * _FRAUD):
        series = _fraud(random, cards, days, usual, own_device)
        series = series.first(int(count * _FRAUD) - fraud)
        fraud += len(series.time)
        parts.append(series)
    labels = np.repeat([0, 1], [len(parts[0].time), fraud])
    merged = _Series(
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.card for part in parts]),
        np.concatenate([part.device for part in parts]),
        np.concatenate([part.amount for part in parts]),
        np.concatenate([part.shop for part in parts]),
    )
    order = np.argsort(merged.time, kind="stable")
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "time": START + merged.time[order].round(3),
            "card": [f"c{number}" for number in merged.card[order]],
            "device": [f"d{number}" for number in merged.device[order]],
            "shop": np.array(_SHOPS)[merged.shop[order]],
            "amount": np.maximum(merged.amount[order], 0.5).round(2),
            "is_online": (random.random(count) < _ONLINE).astype(int),
            "is_fraud": labels[order],
        }
    )


def _times(random: Generator, n: int, days: float) -> Floats:
    """Seconds from the start; most payments are in the afternoon."""
    hour = np.clip(random.normal(15, 4.5, n), 0, 23.99)
    return np.floor(random.random(n) * days) * _DAY + hour * 3600 + random.random(n)


def _shops(random: Generator, n: int) -> Numbers:
    return random.choice(len(_SHOPS), n, p=_SHOP_WEIGHTS)


def _customers(random: Generator, n: int, cards: int, days: float, usual: Floats, own_device: Numbers) -> _Series:
    activity = random.gamma(1.5, 1.0, cards)
    card = random.choice(cards, n, p=activity / activity.sum())
    time = _times(random, n, days)
    # A spree: this payment follows another one of the card within a quarter of an hour.
    follows = np.flatnonzero(random.random(n) < _SPREES)
    led = random.integers(0, n, len(follows))
    card[follows], time[follows] = card[led], time[led] + random.exponential(_SPREE_SECONDS, len(follows))
    device = own_device[card].copy()
    new = random.random(n) < _NEW_DEVICES
    device[new] = cards + random.integers(0, 20 * cards, int(new.sum()))
    shop, amount = _shops(random, n), np.exp(random.normal(usual[card], 0.7))
    small = random.random(n) < _SMALL  # parking, songs
    shop[small], amount[small] = _SHOPS.index("digital"), random.uniform(0.5, 3, int(small.sum()))
    return _Series(time, card, device, amount, shop)


def _fraud(random: Generator, cards: int, days: float, usual: Floats, own_device: Numbers) -> _Series:
    kind = str(random.choice(list(_LENGTHS), p=[0.45, 0.25, 0.2, 0.1]))
    device = int(cards + random.integers(0, 20 * cards))
    n = int(random.integers(*_LENGTHS[kind]))
    gaps = random.exponential(_FRAUD_SECONDS, n) + 5
    time = _times(random, 1, days) + np.cumsum(gaps)
    card = np.full(n, random.integers(0, cards))
    amount = np.exp(random.normal(random.choice(usual, n), 0.8))
    shop = _shops(random, n)
    if kind == "testing":
        large = random.integers(1, 3)
        amount[:-large] = random.uniform(0.5, 3, n - large)
        amount[-large:] *= 3
        shop[:-large] = _SHOPS.index("digital")
    if kind == "farm":
        card = random.integers(0, cards, n)
    elif random.random() < _TAKEN_OVER:
        device = int(own_device[card[0]])
    return _Series(time, card, np.full(n, device), amount, shop)
