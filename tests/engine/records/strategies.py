"""Records for the differential tests: well-formed ones in every spelling that JSON allows, and damaged ones."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from saker.engine.field_tree import Branch, Field, field_tree
from tests.engine.records.decoders import CONTRACT, CONTRACTS

SPACE = st.sampled_from(["", "", "", " ", "\n  ", "\t", "\r\n"])
DIGITS = st.text("0123456789", min_size=1, max_size=25)
Draw = Any


@st.composite
def numbers(draw: Draw) -> str:
    """Every form of a JSON number, short and long, and floats as programs print them."""
    if draw(st.booleans()):
        return repr(draw(st.floats(allow_nan=False, allow_infinity=False)))
    whole = draw(DIGITS).lstrip("0") or "0"
    fraction = "." + draw(DIGITS) if draw(st.booleans()) else ""
    exponent = draw(st.sampled_from(["", "", "e", "E-", "e+"]))
    return f"{draw(st.sampled_from(['', '-']))}{whole}{fraction}{exponent and exponent + str(draw(st.integers(0, 330)))}"


ALMOST_NUMBERS = st.sampled_from(
    [
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e+",
        "--1",
        "1.2.3",
        "NaN",
        "Infinity",
        "0x1",
        "1_0",
        "nul",
        "tru",
        "-01",
        "00",
        "1e5.5",
    ]
)


@st.composite
def strings(draw: Draw, texts: st.SearchStrategy[str]) -> str:
    """A JSON string, each character as it is or escaped."""
    out = []
    for character in draw(texts):
        if draw(st.integers(0, 5)) == 0 or character in '"\\' or character < " ":
            units = character.encode("utf-16-be")
            out += [f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
        else:
            out.append(character)
    return '"' + "".join(out) + '"'


TEXTS = st.one_of(
    st.sampled_from(["web", "app", "café", "a long name of a device", "y", "n", "", "fax", "apps"]),
    st.text(max_size=40),
    numbers(),
    ALMOST_NUMBERS,
    st.text("1 _.-+eE", max_size=6),
)
SCALARS = st.one_of(numbers(), strings(TEXTS), st.sampled_from(["null", "null", "true", "false"]))


def _array(items: list[str]) -> str:
    return "[" + ",".join(items) + "]"


def _object(items: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}:{value}" for key, value in items) + "}"


NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(_array),
        st.lists(st.tuples(strings(st.text(max_size=5)), inner), max_size=4).map(_object),
    ),
    max_leaves=8,
)
KNOWN_NAMES = [CONTRACT.id_field, *dict.fromkeys(feature.field for feature in CONTRACT.features)]
NAMES = st.one_of(
    st.sampled_from(KNOWN_NAMES), st.sampled_from(["x", "zz", "an_unknown_field_of_some_length"]), st.text(max_size=20)
)


@st.composite
def usual_fields(draw: Draw) -> list[tuple[str, str]]:
    """A record as a producer means it: every field at most once and of the right kind, mostly."""
    fields = [("id", draw(st.one_of(numbers(), strings(st.text(min_size=1, max_size=30)))))]
    fields.append(("amount", draw(numbers())))
    fields.append(("must", draw(st.sampled_from(['"y"', '"n"', '"other"']))))
    for name in KNOWN_NAMES[1:]:
        if name not in ("amount", "must") and draw(st.booleans()):
            text = strings(TEXTS) if name == "device" else st.one_of(numbers(), st.just("null"))
            fields.append((name, draw(text)))
    if draw(st.booleans()):
        fields.append(("x", draw(NESTED)))
    return list(draw(st.permutations(fields))) if draw(st.booleans()) else fields


@st.composite
def records(draw: Draw) -> bytes:
    """A JSON object, usual or wild, with white space anywhere."""
    wild = st.lists(st.tuples(NAMES, st.one_of(SCALARS, NESTED, ALMOST_NUMBERS)), max_size=8)
    fields = draw(st.one_of(usual_fields(), usual_fields(), wild))
    if draw(st.integers(0, 4)) == 0:
        fields = [*fields, draw(st.tuples(NAMES, SCALARS))]
    space = draw(st.sampled_from(["", " "])) if draw(st.booleans()) else None

    def gap() -> str:
        return str(draw(SPACE)) if space is None else ""

    parts = []
    for name, value in fields:
        if draw(st.integers(0, 9)) == 0:
            key = draw(strings(st.just(name)))
        else:
            key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        parts.append(f"{gap()}{key}{gap()}:{gap()}{space or ''}{value}{gap()}")
    return (gap() + "{" + ("," + (space or "")).join(parts) + "}" + gap()).encode("utf-8", "surrogatepass")


PIECES = [b'"', b"\\", b",", b"}", b"[", b"\0", b"\xff", b"0", b"-", b".", b"e", b"\xc3", b" "]


@st.composite
def damaged(draw: Draw, whole: st.SearchStrategy[bytes]) -> bytes:
    """A record with a few bytes changed, removed, doubled or put in."""
    value = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        action = draw(st.sampled_from(["remove", "put in", "change", "double"]))
        if action == "remove":
            del value[at : at + draw(st.integers(1, 3))]
        elif action == "put in":
            value[at:at] = draw(st.sampled_from(PIECES))
        elif action == "change":
            value[at : at + 1] = bytes([draw(st.integers(0, 255))])
        else:
            value[at:at] = value[at : at + draw(st.integers(1, 30))]
    return bytes(value)


TIMES = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])).map(datetime.isoformat),
    st.datetimes().map(lambda at: f"{at:%Y-%m-%d %H:%M}"),
    st.dates().map(date.isoformat),
    st.text("0123456789-:TZ.+ ", max_size=26),
    st.sampled_from(
        ["2024-02-29T23:59:59.123456789123Z", "2023-02-29", "0000-01-01", "0001-01-01T00:00+23:59", "1999-12-31t24:00Z",
         "2024-01-01T00:00:60Z", "2024-01-01T01:02:03,5-0100", "2024-01-01T", "2024-01-01T1:02", "2024-01-01T01:02:03.Z"]
    ),
)  # fmt: skip


SPACING = [("", ":", ","), ("", ": ", ", "), ("\n  ", ": ", ",\n  "), (" ", " :", " ,")]


def _of_branch(draw: Draw, branch: Branch, kind: str) -> Any:
    """JSON for the branch. kind: plain (one producer's, so that its order is learned), usual, or wild."""
    if kind == "wild" and draw(st.integers(0, 3)) == 0 and branch.path:
        return draw(st.one_of(SCALARS, NESTED))
    gap, colon, comma = SPACING[0] if kind == "plain" else draw(st.sampled_from(SPACING))
    if branch.is_array:
        highest = max(int(key) for key in branch.children)
        filled = draw(st.integers(0, highest + 2)) if kind == "wild" else highest + 1
        items = [_child(draw, branch.children[at], kind) if at in branch.children else draw(NESTED) for at in range(filled)]
        return "[" + gap + comma.join(items) + gap + "]"
    fields = [
        (str(name), _child(draw, child, kind))
        for name, child in branch.children.items()
        if _is_needed(child) or draw(st.integers(0, 3))
    ]
    if kind != "plain" and draw(st.integers(0, 2)) == 0:
        fields.insert(
            draw(st.integers(0, len(fields))), (draw(st.sampled_from(["unknown", "id", "amount", "t"])), draw(NESTED))
        )
    if kind == "wild" and fields and draw(st.booleans()):
        fields = [*draw(st.permutations(fields)), *draw(st.sampled_from([[], fields[:1]]))]
    is_ascii = kind == "plain" or draw(st.booleans())
    texts = [f"{json.dumps(name, ensure_ascii=is_ascii)}{colon}{value}" for name, value in fields]
    return "{" + gap + comma.join(texts) + gap + "}"


def _is_needed(child: Branch | Field) -> bool:
    fields = list(child.fields()) if isinstance(child, Branch) else [child]
    return any(field.required or field.is_identifier for field in fields)


def _child(draw: Draw, child: Branch | Field, kind: str) -> Any:
    if isinstance(child, Branch):
        return "null" if not _is_needed(child) and draw(st.integers(0, 5)) == 0 else _of_branch(draw, child, kind)
    features = [feature for _, feature in child.columns]
    if kind == "wild":
        values = st.one_of(SCALARS, NESTED, ALMOST_NUMBERS)
    elif kind == "plain":
        usual = st.sampled_from(["1", "-2.5", '"web"', "1e3"]) if child.is_identifier else st.integers(-9, 99_999).map(str)
        values = st.one_of([usual] * 9 + [SCALARS])
    elif any(feature.derivation for feature in features):
        values = st.one_of(numbers(), strings(TIMES))
    elif any(feature.kind == "category" for feature in features):
        values = st.one_of(strings(TEXTS.filter(bool)), numbers(), st.just("true"))
    else:
        values = numbers()
    return draw(values)


@st.composite
def records_of(draw: Draw, name: str) -> bytes:
    """A record for one of CONTRACTS, usual or wild."""
    kind = draw(st.sampled_from(["plain", "plain", "plain", "usual", "wild"]))
    record: bytes = _of_branch(draw, field_tree(CONTRACTS[name]), kind).encode("utf-8", "surrogatepass")
    return record


def batches(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes | None]]:
    return st.lists(st.one_of(whole, whole, damaged(whole), st.none(), st.binary(max_size=20)), max_size=8)
