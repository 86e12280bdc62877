"""Files of records as commands read them: a line is taken byte for byte, but for the label."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saker.commands.records import _without, file_records, lines
from saker.engine.errors import SakerError
from saker.engine.kafka.replay import LoadError, keyed
from tests.support.examples import examples


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b'{"id":12345678901234567890123,"a":1,"isFraud":0}', b'{"id":12345678901234567890123,"a":1}'),
        (b'{"id":1E2,"a":1.50,"isFraud":0}', b'{"id":1E2,"a":1.50}'),
        (b'{"isFraud":1,"id":1}', b'{"id":1}'),
        (b'{ "id" : 1 , "isFraud" : 0 , "a" : 2 }', b'{ "id" : 1 , "a" : 2 }'),
        (b'{"id":3,"a":1,"a":2,"isFraud":0}', b'{"id":3,"a":1,"a":2}'),
        (b'{"isFraud":0,"id":3,"isFraud":1}', b'{"id":3}'),
        (b'{"id":4,"note":1e400,"isFraud":1}', b'{"id":4,"note":1e400}'),
        (b'{"id":5,"is\\u0046raud":1}', b'{"id":5}'),
        (b'{"id":6,"isFraud":{"isFraud":[1,"}"]},"b":"isFraud"}', b'{"id":6,"b":"isFraud"}'),
        (b'{"id":7,"nested":{"isFraud":1}}', b'{"id":7,"nested":{"isFraud":1}}'),
        ('{"id":"é","isFraud":null,"b":"ü"}'.encode(), '{"id":"é","b":"ü"}'.encode()),
        (b'{"isFraud":1}', b"{}"),
        (b'{"id":8,"isFraud":1', b'{"id":8,"isFraud":1'),
        (b'["isFraud"]', b'["isFraud"]'),
        (b"", b""),
        (b'{"id":9,\xff"isFraud":1}', b'{"id":9,\xff"isFraud":1}'),
        (b'{"isFraud":' + b"[" * 100_000, b'{"isFraud":' + b"[" * 100_000),
    ],
)
def test_the_label_is_cut_out_and_nothing_else_changes(line: bytes, sent: bytes) -> None:
    assert _without("isFraud", line) == sent


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=examples(500), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["label", "a", "b", "", "label ", "é"]), VALUES), max_size=6),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\n")]),
)
def test_whatever_stands_beside_it(members: list[tuple[str, object]], ascii_only: bool, separators: tuple[str, str]) -> None:
    comma, colon = separators
    told = [f"{json.dumps(name, ensure_ascii=ascii_only)}{colon}{json.dumps(value)}" for name, value in members]
    line = "{" + comma.join(told) + "}"
    found = _without("label", line.encode()).decode()
    assert json.loads(found, object_pairs_hook=list) == json.loads(
        "{" + ",".join(one for one, (name, _) in zip(told, members, strict=True) if name != "label") + "}",
        object_pairs_hook=list,
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\r\n{"a":2}', [b'{"a":1}', b'{"a":2}']),
        (codecs.BOM_UTF8 + b'{"a":1}\n', [b'{"a":1}']),
        (b'{"a":1}\n\nno\n', [b'{"a":1}', b"", b"no"]),
        ('{"a":"x\u2028y\x85z"}\n'.encode(), ['{"a":"x\u2028y\x85z"}'.encode()]),
        (gzip.compress(b'{"a":1}\n', mtime=0), [b'{"a":1}']),
        (b"", []),
    ],
)
def test_lines(data: bytes, expected: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(data)
    assert lines(tmp_path / "r.jsonl") == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"a":1},\n{"a":2}]\n', "got a JSON array; write one object a line, say with `jq -c"),
        (b' \n [{"a":1}]', "got a JSON array"),
        ('{"a":1}\n'.encode("utf-16"), "got text in UTF-16"),
        (b"PAR1\x15\x04", "the Parquet file is damaged"),
        (gzip.compress(b'{"a":1}\n' * 100, mtime=0)[:-9], "the gzip file is damaged"),
    ],
)
def test_other_files_are_refused_in_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(data)
    with pytest.raises(SakerError, match=message):
        file_records(tmp_path / "r.jsonl", "id", "isFraud")
    with pytest.raises(SakerError, match="no such file"):
        file_records(tmp_path / "absent.jsonl", "id", "isFraud")


def test_different_keys_stay_different() -> None:
    texts = {
        b'{"k":1234567}': b"1234567",
        b'{"k":1234567.0}': b"1234567",
        b'{"k":1234567.5}': b"1234567.5",
        b'{"k":12345678901234567890123}': b"12345678901234567890123",
        b'{"k":12345678901234567890124}': b"12345678901234567890124",
        b'{"k":1e400}': None,  # no JSON to orjson, and rejected as a number
        b'{"k":"0012"}': b"0012",
        b'{"k":true}': b"true",
        b'{"k":null}': None,
        b"no JSON": None,
        b"[1]": None,
        b"": None,
    }
    assert dict(zip(texts, (key for key, _ in keyed(texts, "k")), strict=True)) == texts
    with pytest.raises(LoadError, match=r"the first record has no field 'k' .from --key.; it has a, b"):
        list(keyed([b'{"a":1,"b":2}'], "k"))
