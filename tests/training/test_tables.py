from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saker.engine.contract import Contract
from saker.engine.records.decode import Decoder
from saker.export.proof.table_records import table_records
from saker.training import tables
from saker.training.fit import Settings, train
from saker.training.tables import TableError, features_of, labels_of, read_csv, seconds, to_records
from tests.support.examples import examples


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_becomes_records_that_its_own_contract_decodes(tmp_path: Path) -> None:
    path = written(tmp_path, "when,amount,shop,flag,maybe\n0,1.5,a,True,True\n7200,2,,False,\n")
    table = read_csv(path, "id")
    records = to_records(table)
    assert records[1] == b'{"id":1,"when":7200,"amount":2,"shop":null,"flag":"False","maybe":null}'
    features = features_of(table.drop(columns=["id"]), time="when")
    assert [(f.name, f.kind, f.required, f.vocabulary) for f in features] == [
        ("hour_of_day", "derived", True, ()),
        ("day_of_week", "derived", True, ()),
        ("amount", "number", True, ()),
        ("shop", "category", False, ("a",)),
        ("flag", "category", True, ("False", "True")),
        ("maybe", "category", False, ("True",)),
    ]
    decoded = Decoder(Contract(features, id_field="id")).decode(records)
    assert decoded.rejections == []
    assert decoded.matrix[0].tolist() == [0, 0, 1.5, 0, 1, 0]


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("12.50", b"12.50"),
        ("-0", b"-0"),
        ("1e5", b"1e5"),
        ("9007199254740993", b"9007199254740993"),
        ("12345678901234567890123", b"12345678901234567890123"),
        ("000123", b'"000123"'),
        (" 7", b'" 7"'),
        ("+7", b'"+7"'),
        (".5", b'".5"'),
        ("12,5", b'"12,5"'),
        ("", b"null"),
        *(
            (text, orjson.dumps(text))
            for text in ("NA", "N/A", "NULL", "null", "None", "nan", "NaN", "<NA>", "#N/A", "inf", "True")
        ),
        ('a "b"', rb'"a \"b\""'),
        ("a\\b", rb'"a\\b"'),
        ("two\nlines", rb'"two\nlines"'),
        ("é😀", '"é😀"'.encode()),
    ],
)
@pytest.mark.parametrize("others", [[], ["1", "2"], ["x", ""]])
def test_a_field_is_what_its_own_text_says_whatever_the_others_are(
    field: str, token: bytes, others: list[str], tmp_path: Path
) -> None:
    rows = "".join('{},"{}"\n'.format(n, text.replace('"', '""')) for n, text in enumerate([field, *others]))
    path = written(tmp_path, "id,a\n" + rows)
    assert to_records(read_csv(path, "id"))[0] == b'{"id":0,"a":' + token + b"}"


@pytest.mark.parametrize(
    "data",
    [
        b"id,a\n1,x\n",
        b"id,a\r\n1,x\r\n",
        b"\xef\xbb\xbfid,a\n1,x\n",
        b"id,a\n1,x",
        b"id;a\n1;x\n",
        b"id\ta\n1\tx\n",
        b"id|a\n1|x\n",
        b'"id","a"\n"1","x"\n',
        gzip.compress(b"id,a\n1,x\n", mtime=0),
    ],
)
def test_files_of_other_systems(data: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, data, "t.csv.gz" if data.startswith(b"\x1f") else "t.csv")
    assert to_records(read_csv(path, "id")) == [b'{"id":1,"a":"x"}'] == table_records(path, "id", "isFraud")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a CSV file with a header line, got nothing"),
        (b'{"a":1}\n', 'expected a CSV file with a header line, got \'{"a":1}'),
        (b"a,b\n", "it has a header line and no rows"),
        (b"a,b\n1,2,3,4\n5\n6,7,8,9,10\n", "Row #2: Expected 2 columns, got 4"),
        (b"a,b\n1,2\n3\n", "Row #3: Expected 2 columns, got 1"),
        (b"a,b\n1,2,\n3,4,\n", "Row #2: Expected 2 columns, got 3"),
        (b"a,b\n1,2\n3,4,\n", "Row #3: Expected 2 columns, got 3"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,b\n1,\xff\n", "UTF-?8"),
        (b"\xff\xfea\x00,\x00b\x00\n\x00", "expected text in UTF-8"),
        (b'a,b\n1,"x\n2,y\n', "a quote is not closed"),
        (gzip.compress(b"a,b\n1,2\n" * 100, mtime=0)[:-10], "expected"),
    ],
)
def test_what_is_no_csv_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, data)
    with pytest.raises(TableError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_csv(path, "id")
    with pytest.raises(TableError, match="no such file"):
        read_csv(tmp_path / "absent.csv", "id")


def test_texts_that_mean_missing_are_those_that_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, "id,a,b\n1,NA,NA\n2,5,-\n")
    assert to_records(read_csv(path, "id")) == [b'{"id":1,"a":"NA","b":"NA"}', b'{"id":2,"a":5,"b":"-"}']
    told = [b'{"id":1,"a":null,"b":null}', b'{"id":2,"a":5,"b":"-"}']
    assert to_records(read_csv(path, "id", ["NA"])) == told == table_records(path, "id", "isFraud", ["NA"])


@pytest.mark.parametrize(
    "values", [["90210", "01234"], ["NA", "DE"], ["a", "7"], ["1.2.3.4"], ["2026-01-01"], ["True", "False"]]
)
def test_columns_that_are_categories(values: list[str], tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a\n" + "".join(f"{value}\n" for value in values)), "id")
    assert features_of(table[["a"]], time=None)[0].vocabulary == tuple(sorted(values))


@pytest.mark.parametrize(
    "values",
    [
        ["$12.50", "3"],
        ["1.234,50", "12,00"],
        ["NA", "1", "2"],
        ["12 EUR"],
        ["EUR 12"],
        [".5"],
        ["+7"],
        [" 7"],
        ["7."],
        ["12%"],
        ["1 234"],
    ],
)
def test_numbers_that_are_written_otherwise_are_no_categories(values: list[str], tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a\n" + "".join(f'"{value}"\n' for value in values)), "id")
    with pytest.raises(TableError, match=r"column 'a': \d of \d values look like numbers, .* --text a to take all of them"):
        features_of(table[["a"]], time=None)
    assert features_of(table[["a"]], time=None, text=["a"])[0].kind == "category"


def test_names_that_lightgbm_does_not_take_read_the_field_of_the_column(tmp_path: Path) -> None:
    names = ["a b", "a_b", "c: USD", 'd"e', "f\ng", "[h]", "hour_of_day", "t"]
    head = ",".join('"{}"'.format(name.replace('"', '""')) for name in names)
    rng = np.random.default_rng(0)
    rows = [f"{n % 2},{','.join(map(str, rng.integers(0, 9, len(names) - 1)))},{n}" for n in range(400)]
    table = read_csv(written(tmp_path, f"y,{head}\n" + "\n".join(rows)), "id")
    trained = train(table, Settings(label="y", time="t", id_field="id", rounds=2))
    features = trained.contract.features
    assert [feature.field for feature in features] == [*names[:-1], "t", "t"]
    assert len({feature.name for feature in features}) == len(features)
    assert trained.booster.feature_name() == [feature.name for feature in features]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("when", "column 'when' .from --time.: expected numbers, got '01.01.2026' in row 1"),
        ("millis", "got 1767225600000 in row 1, which can only be milliseconds or finer: say which with --time-unit"),
        ("gap", "expected numbers, got None in row 2"),
    ],
)
def test_what_is_no_time_in_seconds_is_named(column: str, message: str, tmp_path: Path) -> None:
    text = "when,millis,gap,y\n01.01.2026,1767225600000,1,0\n02.01.2026,1767312000000,,1\n"
    table = read_csv(written(tmp_path, text), "id")
    with pytest.raises(TableError, match=message):
        seconds(table, column, "--time")
    assert seconds(table, "millis", "--time", "ms").tolist() == [1767225600.0, 1767312000.0]
    assert labels_of(table, "y").tolist() == [0, 1]
    with pytest.raises(TableError, match=r"from --label.: expected 0 and 1, got \[1767225600000"):
        labels_of(table, "millis")


def test_a_column_of_iso_8601_is_a_time(tmp_path: Path) -> None:
    text = "when,y\n2026-01-01 00:00:00,0\n2026-01-02T00:00:00.5+01:00,1\n2026-01-03,1\n"
    table = read_csv(written(tmp_path, text), "id")
    assert seconds(table, "when", "--time").tolist() == [1767225600.0, 1767308400.5, 1767398400.0]


def test_rows_that_all_are_rejected_are_one_line(tmp_path: Path) -> None:
    rows = "".join(f"{n % 2},,{n},1\n" for n in range(200))
    table = read_csv(written(tmp_path, "y,id,t,a\n" + rows), "id")
    with pytest.raises(TableError, match=r"not one of the 200 rows can be scored; the first: row 1, field 'id'"):
        train(table, Settings(label="y", time="t", id_field="id", rounds=2))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=6)
ODD = st.sampled_from(
    ["", "NA", "null", "007", "1e5", "-0", "12,5", '"', ",", "\n", "a\nb", '""', " 1", "1 ", "é", "\ufeff", "'", "\\"]
)
FIELDS = st.one_of(ODD, TEXTS, st.integers().map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr))


def by_the_standard(text: str, separator: str) -> list[list[str]]:
    """RFC 4180 and nothing else: fields of a text, quoted or not."""
    rows: list[list[str]] = []
    row: list[str] = []
    field, at, quoted = "", 0, False
    while at < len(text):
        one = text[at]
        if quoted:
            if one == '"' and text[at : at + 2] == '""':
                field, at = field + '"', at + 1
            elif one == '"':
                quoted = False
            else:
                field += one
        elif one == '"' and not field:
            quoted = True
        elif one == separator:
            row, field = [*row, field], ""
        elif one == "\n":
            rows, row, field = [*rows, [*row, field]], [], ""
        else:
            field += one
        at += 1
    return rows


@settings(max_examples=examples(300), deadline=None)
@given(
    rows=st.lists(st.lists(FIELDS, min_size=3, max_size=3), min_size=1, max_size=12),
    separator=st.sampled_from(",;\t|"),
    quote_all=st.booleans(),
    small_blocks=st.booleans(),
)
def test_odd_tables_are_what_the_standard_says_to_both_readers(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], separator: str, quote_all: bool, small_blocks: bool
) -> None:
    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quote_all or set(text) & {'"', ",", ";", "\t", "|", "\n"} else text

    lines = [separator.join(map(field, row)) + "\n" for row in [["id", "a", "b"], *rows]]
    text = "".join(lines)
    path = written(tmp_path_factory.mktemp("odd"), text)
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:
            patch.setattr(tables, "_BLOCK", 2 * max(len(line.encode()) for line in lines))
        records = to_records(read_csv(path, "id"))
    assert list(map(orjson.loads, records)) == list(map(orjson.loads, table_records(path, "id", "isFraud")))
    header, *expected = by_the_standard(text, separator)
    assert header == ["id", "a", "b"]
    number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
    for record, row in zip(records, expected, strict=True):
        found: dict[str, Any] = json.loads(
            record, parse_float=lambda text: ("number", text), parse_int=lambda text: ("number", text)
        )
        said = [None if not one else ("number", one) if number.fullmatch(one) else one for one in row]
        assert list(found.values()) == said
