from __future__ import annotations

from saker.engine.contract import Contract
from saker.engine.records.decode import Decoder
from saker.training import synthetic
from saker.training.malformed import malformed
from saker.training.tables import features_of, to_records


def test_there_are_twenty_kinds_and_the_decoder_tells_them_apart() -> None:
    table = synthetic.frame(2_000).drop(columns=["isFraud"])
    features = features_of(table.drop(columns=["TransactionID"]), time="TransactionDT")
    kinds = list(malformed(to_records(table)[0]))
    assert len({kind.kind for kind in kinds}) == len({kind.value for kind in kinds}) == 20
    decoded = Decoder(Contract(features)).decode([kind.value for kind in kinds])
    assert len(decoded.ids) == 0
    assert [(r.reason, r.field or "") for r in decoded.rejections] == [(kind.code, kind.field) for kind in kinds]
