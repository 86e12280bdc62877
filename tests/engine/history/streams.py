"""Streams of records for velocity features, and what DuckDB makes of them by a self-join, word for word as
docs/explanation/velocity.md has it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from saker.engine.contract import Contract, Feature
from saker.engine.velocity import AHEAD_MS, EventTime, Velocity, parse_window

#: Every function, over windows of several lengths and two keys that share fields.
FEATURES = {
    "n_1m": Velocity(("card",), "count", 60_000),
    "sum_1m": Velocity(("card",), "sum", 60_000, "amount", 2),
    "mean_1m": Velocity(("card",), "mean", 60_000, "amount", 2),
    "std_1m": Velocity(("card",), "std", 60_000, "amount", 2),
    "min_1m": Velocity(("card",), "min", 60_000, "amount", 2),
    "max_1m": Velocity(("card",), "max", 60_000, "amount", 2),
    "last_1m": Velocity(("card",), "last", 60_000, "amount", 2),
    "shops_1m": Velocity(("card",), "distinct", 60_000, "shop"),
    "since_1m": Velocity(("card",), "seconds_since_last", 60_000),
    "ratio_1m": Velocity(("card",), "ratio_to_mean", 60_000, "amount", 2),
    "z_1m": Velocity(("card",), "zscore", 60_000, "amount", 2),
    "sum_1h": Velocity(("card",), "sum", parse_window("1h"), "amount", 0),
    "n_90d": Velocity(("card", "shop"), "count", parse_window("90d")),
    "std_90d": Velocity(("card", "shop"), "std", parse_window("90d"), "amount", 9),
    "last_5m": Velocity(("card", "shop"), "last", parse_window("5m"), "amount", 4),
    "cards_1h": Velocity(("shop",), "distinct", parse_window("1h"), "card"),
    "max_1h": Velocity(("shop",), "max", parse_window("1h"), "fee", 1),
    "mean_fee_1h": Velocity(("shop",), "mean", parse_window("1h"), "fee", 1),
}


def contract_of(features: dict[str, Velocity], *, has_time: bool = True) -> Contract:
    plain = (Feature("amount"),)
    velocity = tuple(Feature(name, "velocity", velocity=one) for name, one in features.items())
    return Contract((*plain, *velocity), id_field="id", event_time=EventTime("time", "ms") if has_time else None)


@dataclass(frozen=True)
class Sent:
    """A record; `time` and `timestamp` in ms, the timestamp -1 for none."""

    time: int | None
    card: Any
    shop: Any
    amount: float | None
    fee: float | None
    timestamp: int = -1

    def json(self, number: int) -> bytes:
        fields = {"id": number, "time": self.time, "card": self.card, "shop": self.shop}
        return json.dumps({**fields, "amount": self.amount, "fee": self.fee}).encode()


START = 1_700_000_000_000 // 60_000 * 60_000

_edges = st.sampled_from([0, 1, 999, 1000, 1001, 59_000, 59_999, 60_000, 60_001, 3_599_999, 3_600_000, 3_660_000])
_steps = st.one_of(_edges, st.integers(0, 70_000), st.integers(0, 4_000_000), _edges.map(lambda step: -step))
_amounts = st.one_of(
    st.none(),
    st.sampled_from(
        [0.0, -0.0, 0.005, 0.015, 12.5, 99.99, 1e6, -1e6, 9e13, -9.007199254740993e13, 1e300, 9.007199254740993e15]
    ),
    st.floats(-1000, 1000),
).map(lambda amount: None if amount is not None and abs(amount) > 3e38 else amount)
_keys = st.sampled_from([None, "", "a", "b", "ü", 7, 7.0, "7", True, 1, 2**53, 2**53 + 1, 7.5])


@st.composite
def streams(draw: st.DrawFn, most: int = 60, *, with_timestamps: bool = False) -> list[Sent]:
    """Times move forward and back around the edges of hops; keys are few, so that histories are long."""
    time, sent = START, []
    for _ in range(draw(st.integers(1, most))):
        time = max(time + draw(_steps), 0)
        missing = draw(st.integers(0, 30)) == 0
        ahead = draw(st.sampled_from([0, 0, 0, -5000, AHEAD_MS, AHEAD_MS + 1, -AHEAD_MS * 10])) if with_timestamps else 0
        sent.append(
            Sent(
                None if missing else time,
                draw(_keys),
                draw(_keys),
                draw(_amounts),
                draw(_amounts),
                max(time - ahead, 0) if with_timestamps else -1,
            )
        )
    return sent


def _identity(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return f"b{value}"
    if isinstance(value, str):
        return f"t{value}"
    return f"n{int(value)}" if float(value).is_integer() else f"f{float(value).hex()}"


def _text(name: str, one: Velocity) -> str:
    """The query of one feature: a self-join of the stream."""
    h = one.hop_ms
    hop, same = f"(r.time // {h})", " and ".join(f"q.{part} = r.{part}" for part in one.by)
    keyed = " and ".join(f"r.{part} is not null" for part in one.by)
    v = f"q.v_{one.of}_{one.scale}" if one.of and not one.takes_any_value else "null"
    own = v.replace("q.", "r.")
    p = f"{10**one.scale}::double"
    n, s, q2 = "count(h.v)", "coalesce(sum(h.v), 0)::hugeint", "coalesce(sum(h.v::hugeint * h.v::hugeint), 0)"
    exact = f"sqrt(({n}::hugeint * {q2} - {s} * {s})::double / ({n} * ({n} - 1))::double)"
    own_n = f"any_value({own})::hugeint * {n}"
    distinct = f"q.{one.of}" if one.takes_any_value else "null"
    result = {
        "count": "count(h.pos)::double",
        "sum": f"{s}::double / {p}",
        "mean": f"case when {n} > 0 then {s}::double / ({n} * {10**one.scale}::hugeint)::double end",
        "std": f"case when {n} > 1 then {exact} / {p} end",
        "min": f"min(h.v)::double / {p}",
        "max": f"max(h.v)::double / {p}",
        "last": f"any_value(lv.v)::double / {p}",
        "distinct": "least(coalesce(any_value(d.n), 0), 255)::double",
        "seconds_since_last": "(any_value(r.time) - any_value(l.time))::double / 1000",
        "ratio_to_mean": f"case when {s} <> 0 then ({own_n})::double / {s}::double end",
        "zscore": f"case when {n} > 1 and {exact} > 0 then ({own_n} - {s})::double / {n}::double / {exact} end",
    }[one.function]
    # ruff: noqa: S608 - the texts are this file's
    return f"""
    with pairs as (
      select r.pos as r_at, q.pos, q.time, q.time // {h} as hop, {v} as v, {distinct} as d, {hop} as b,
        greatest({hop}, max(q.time // {h}) over (partition by r.pos)) as newest
      from stream r join stream q on q.pos < r.pos and {same} where r.time is not null and q.time is not null
    ),
    h as (select * from pairs where hop > newest - 60 and hop <= b),
    d as (select r_at, count(distinct d) as n from pairs where hop > newest - 60 group by r_at),
    last_any as (select r_at, max(pos) as pos from pairs group by r_at),
    last_value as (select r_at, max(pos) as pos from pairs where v is not null group by r_at),
    l as (select h.* from h join last_any using (r_at, pos)),
    lv as (select h.* from h join last_value using (r_at, pos))
    select r.pos, {result} as {name} from stream r
      left join h on h.r_at = r.pos left join d on d.r_at = r.pos left join l on l.r_at = r.pos left join lv on lv.r_at = r.pos
      where r.time is not null and {keyed} group by r.pos
    """


def by_duckdb(sent: Sequence[Sent], features: dict[str, Velocity]) -> NDArray[np.float32]:
    """The velocity features (n, features) of the records, by SQL."""
    columns = sorted({(one.of, one.scale) for one in features.values() if one.of and not one.takes_any_value})
    names = ["pos", "time", "card", "shop", *(f"v_{of}_{scale}" for of, scale in columns)]
    kinds = ["integer", "bigint", "varchar", "varchar", *("bigint" for _ in columns)]
    rows = []
    for at, one in enumerate(sent):
        time = one.time
        if time is not None and one.timestamp >= 0 and time > one.timestamp + AHEAD_MS:
            time = None
        values = []
        for of, scale in columns:
            value = getattr(one, str(of))
            scaled = math.nan if value is None else value * 10.0**scale
            values.append(round(scaled) if math.isfinite(scaled) and abs(round(scaled)) <= 2**53 else None)
        rows.append((at, time, _identity(one.card), _identity(one.shop), *values))
    result = np.full((len(sent), len(features)), np.nan, np.float32)
    with duckdb.connect() as database:
        database.execute(f"create table stream ({', '.join(f'{n} {k}' for n, k in zip(names, kinds, strict=True))})")
        database.executemany(f"insert into stream values ({', '.join('?' for _ in names)})", rows)
        for column, (name, feature) in enumerate(features.items()):
            for at, value in database.execute(_text(name, feature)).fetchall():
                empty = 0.0 if feature.function in ("count", "sum", "distinct") else math.nan
                result[at, column] = empty if value is None else np.float32(value)
    return result


class Untouched:
    """A history that leaves the matrix alone, for tests of the inputs."""

    hash_key = bytes(range(16))
    native = None

    def apply(self, *arguments: Any) -> None: ...
