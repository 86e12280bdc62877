"""What `saker bench rows --format` compares gives the same rows: the module checks that before it times anything."""

from __future__ import annotations

import pytest

from saker.bench.micro.formats import cases


@pytest.mark.parametrize(("kind", "peer"), [("nested", "orjson each"), ("avro", "fastavro"), ("protobuf", "upb")])
def test_every_format_and_peer_gives_the_rows_of_flat_json(kind: str, peer: str) -> None:
    found = {case.who: case for case in cases(kind)}
    assert {"baseline", "reference", peer} <= set(found)
    for case in found.values():
        case.call()
