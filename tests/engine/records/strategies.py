"""Records for the differential tests: well-formed ones in every spelling that JSON allows, and damaged ones."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.engine.records.decoders import CONTRACT

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
def damaged(draw: Draw) -> bytes:
    """A record with a few bytes changed, removed, doubled or put in."""
    value = bytearray(draw(records()))
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


VALUES = st.one_of(records(), records(), damaged(), st.none(), st.binary(max_size=20))
BATCHES = st.lists(VALUES, max_size=8)
