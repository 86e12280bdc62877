from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from saker.engine.contract import Contract
from saker.engine.records.decode import Decoder
from saker.training.tables import TableError, features_of, read_csv, to_records


def test_a_csv_becomes_records_that_its_own_contract_decodes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("when,amount,shop,flag,maybe\n0,1.5,a,True,True\n7200,2,,False,\n")
    table = read_csv(path, "id")
    records = to_records(table)
    assert orjson.loads(records[1]) == {
        "id": 1, "when": 7200, "amount": 2.0, "shop": None, "flag": "False", "maybe": None,
    }  # fmt: skip
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


@pytest.mark.parametrize("text", ["", "a,b\n1,2,3,4\n5\n6,7,8,9,10\n"])
def test_what_is_no_csv_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=r"t\.csv: expected a CSV file with a header line"):
        read_csv(path, "id")
