"""Scores to the JSON of results: natively where the kernels are, by Python otherwise; the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from saker.engine.kernels import Values, mode_of, native
from saker.engine.records.decode import Identifiers

Encode = Callable[..., Sequence[bytes]]
#: Before an identifier, before its score, and after it up to the time: if it is no fraud, and if it is.
Pieces = tuple[bytes, bytes, bytes, bytes]


class Encoder:
    """Writes results such as

    {"TransactionID":2987000,"fraud_score":0.0123,"is_fraud":false,"model":"fraud/7","scored_at_ms":1795525200000}

    and `,"late":true` at the end of a late one.
    """

    def __init__(self, id_field: str, threshold: float, model: str, kernels: str | None = None) -> None:
        """threshold: is_fraud is score >= threshold. model: its name and version. kernels: as for `Decoder`."""
        extension, _ = native(mode_of(kernels))
        self._encode: Encode = extension.encode if extension else _encode
        self._threshold = threshold
        ending = b',"is_fraud":%b,"model":%b,"scored_at_ms":'
        self.pieces: Pieces = (
            b"{%b:" % orjson.dumps(id_field),
            b',"fraud_score":',
            ending % (b"false", orjson.dumps(model)),
            ending % (b"true", orjson.dumps(model)),
        )

    def encode(
        self, ids: Identifiers, scores: NDArray[np.float64], scored_at_ms: int, late: NDArray[np.bool_] | None = None
    ) -> Sequence[bytes]:
        """One JSON object a record; each of `scores` (n,), which are finite, reads back as the same float64.

        late (n,): which of them came too late; without it none.
        """
        if scores.shape != (len(ids),):
            raise ValueError(f"expected one score for each of {len(ids)} identifiers, got shape {scores.shape}")
        flags: NDArray[Any] = scores >= self._threshold
        if late is not None:
            flags = flags + 2 * late.view(np.uint8)
        return self._encode(
            ids.values,
            ids.texts,
            ids.indices,
            ids.starts,
            ids.lengths,
            # The whole batch at once: exactly, and faster than any code that would be worth owning.
            orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY),
            flags,
            self.pieces,
            (b"%d}" % scored_at_ms, b'%d,"late":true}' % scored_at_ms),
        )


def _encode(
    values: Values,
    texts: bytes,
    indices: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    scores: bytes,
    flags: NDArray[Any],
    pieces: Pieces,
    times: tuple[bytes, bytes],
) -> list[bytes]:
    """The reference of put_result in native/rows/results.h. flags (n,): 1 for fraud, 2 for late."""
    before_id, before_score, *after_score = pieces
    ids = Identifiers(values, indices, starts, lengths, texts)
    printed = scores[1:-1].split(b",") if len(ids) else []
    return [
        b"".join((before_id, identifier, before_score, score, after_score[flag & 1], times[flag >> 1]))
        for identifier, score, flag in zip(ids, printed, flags.astype(int).tolist(), strict=True)
    ]
