"""Whether the histories of a topic are whole: all records with the same values of `by` have to be in one partition.

That holds if `by` contains the field that is the Kafka key. It is tested on records, whatever the key looks like.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saker.engine.contract import Contract
from saker.engine.errors import HistoryMissing
from saker.engine.kafka.clients import BrokerUnreachable, KafkaException
from saker.engine.kafka.reader import RecordsRead, read_last
from saker.engine.kernels import Values
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Format

_RECORDS = 20_000


class _Inputs:
    """A history that keeps what it is given of each record."""

    hash_key = bytes(16)
    native = None

    def __init__(self) -> None:
        self.inputs: NDArray[np.int64] = np.empty((0, 0), np.int64)
        self.indices: NDArray[np.int32] = np.empty(0, np.int32)

    def apply(
        self, inputs: NDArray[np.int64], _matrix: NDArray[np.float32], _values: Values, indices: NDArray[np.int32]
    ) -> None:
        self.inputs, self.indices = inputs.copy(), indices.copy()


def check_keys(bootstrap_servers: str, topic: str, contract: Contract, records: Format) -> None:
    """Raises `HistoryMissing` that names two new records of `topic` with equal values of `by` in different partitions.

    Raises `BrokerUnreachable`, and another `SakerError` where the records cannot be decoded.
    """
    if not contract.velocity:
        return
    try:
        read = RecordsRead(read_last(bootstrap_servers, topic, _RECORDS))
    except KafkaException as error:
        raise BrokerUnreachable(f"cannot read {topic} at {bootstrap_servers}: {error.args[0].str()}") from error
    found = _Inputs()
    decoder = Decoder(contract, of=records, history=found)
    decoder.decode(read)
    layout = decoder.layout
    if layout is None or not len(found.indices):
        return
    partitions = np.array([read.records[at].partition for at in found.indices.tolist()])
    for number, key_set in enumerate(layout.key_sets):
        words = [layout.identity_word(part) + half for part in key_set.parts for half in (0, 1)]
        pair = _split(found.inputs[:, words], partitions)
        if pair is None:
            continue
        by = next(
            one.by for (_, one), output in zip(contract.velocity, layout.outputs, strict=True) if output.key_set == number
        )
        first, second = (read.records[int(found.indices[at])] for at in pair)
        raise HistoryMissing(
            f"velocity features by {', '.join(by)}: records of {topic} with the same value are in different partitions, for "
            f"example partition {first.partition}, offset {first.offset} and partition {second.partition}, offset "
            f"{second.offset}. A history is kept for each partition, so `by` must contain the field that is the Kafka key: "
            "produce the records with that key, or change `by`. If partitions were added lately, start with --state-cold-start"
        )


def _split(keys: NDArray[np.int64], partitions: NDArray[np.int64]) -> tuple[int, int] | None:
    """Two rows with the same key (n, words) in different partitions (n,); a missing part is two zeros, and such a key none."""
    whole = np.flatnonzero(np.all(np.any(keys.reshape(len(keys), -1, 2), axis=2), axis=1))
    _, numbers = np.unique(keys[whole], axis=0, return_inverse=True)
    order = np.lexsort((partitions[whole], numbers))
    numbers, rows = numbers[order], whole[order]
    wrong = np.flatnonzero((np.diff(numbers) == 0) & (np.diff(partitions[rows]) != 0))
    return (int(rows[wrong[0]]), int(rows[wrong[0] + 1])) if len(wrong) else None
