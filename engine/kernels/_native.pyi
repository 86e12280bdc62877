"""The types of the extension: what native/*.c offers to Python."""

from collections.abc import Callable, Mapping, Sequence
from ctypes import Array, c_int64
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from saker.engine.kernels import Values

#: Anything with the buffer protocol, C-contiguous.
Buffer = bytes | NDArray[Any]
Variant = Literal["avx512", "avx2", "baseline"]
#: See saker.engine.records.encode.
Pieces = tuple[bytes, bytes, bytes, bytes, bytes, bytes, int]

def variants() -> list[Variant]:
    """Variants that this processor runs, the fastest first."""

def encode(
    values: Values,
    texts: bytes,
    indices: Buffer,  # int32 (n,)
    starts: Buffer,  # int64 (n,)
    lengths: Buffer,  # int64 (n,)
    scores: bytes,
    flags: Buffer,  # uint8 (n,), 1 for fraud, 2 for late
    pieces: Pieces,
    now_ms: int,
    /,
) -> Results: ...
def too_deep(data: bytes, most: int, /) -> int:
    """Where the first bracket is that makes UTF-8 text nest deeper than `most` objects and arrays; -1 if there is none."""

def identity(key: bytes, data: bytes, /) -> bytes:
    """Of `saker.engine.kernels.identity.identity_bytes`, with a key of 16 bytes."""

def hash_key() -> tuple[int, int, int]:
    """Of the decoders' tables of texts, for tests: with it keys can be made to collide."""

def open_librdkafka(path: str, /) -> None:
    """Raises OSError where a function is missing."""

def last_client() -> int:
    """Handle of the client that this thread made last, with the plugin; 0 if there is none or it was asked for."""

class Plan:
    """A tree ensemble laid out for scoring. Immutable."""

    def __init__(self, *, isa: str | None = None, **arrays: Any) -> None: ...
    def score(self, x: Buffer, out: Buffer, program: Program | None = None, /) -> None:
        """x: float32 (n, features). out: float64 (n, targets)."""

    @property
    def isa(self) -> Variant: ...
    @property
    def ways(self) -> tuple[int, int, int, int]:
        """Rows of a block, up to how many are walked, up to how many go in lanes, whether vectors have 512 bits."""

    @property
    def costs(self) -> tuple[int, int, int, int]:
        """Tests of a block, steps of a walked row, lane steps of a row, rankers."""

class Program:
    """Elementwise arithmetic behind the trees. Immutable."""

    def __init__(self, instructions: Buffer, constants: Buffer, outputs: Buffer, n_inputs: int, single: bool) -> None: ...
    def run(self, *arrays: Buffer) -> None:
        """Inputs, then outputs: float64 arrays of one size."""

class VelocityPlan:
    """What velocity features are computed of a record. Immutable. See saker.engine.kernels.velocity_kernel."""

    def __init__(
        self,
        n_words: int,
        width: int,
        has_time: bool,
        key_sets: tuple[Any, ...],
        outputs: tuple[Any, ...],
        hash_key: bytes,
        definition: bytes,
    ) -> None:
        """definition: 32 bytes; plans with the same one can use the same states, unless it is zeros.

        ValueError where a key could have more than 1 MiB.
        """

class VelocityState:
    """The history of one partition. Belongs to one thread."""

    def __init__(self, plan: VelocityPlan, limit: int, next_offset: int = 0, complete_from_ms: int = ...) -> None:
        """limit: bytes; beyond it the keys that were not used for the most records are dropped. complete_from_ms: the event
        time from which on all records are known; records whose window begins earlier are counted as incomplete.
        """

    def statistics(self) -> dict[str, int]:
        """keys, bytes, evicted, evicted_live (whose window had not passed), without_time and incomplete (records), serial,
        next_offset, complete_from_ms.
        """

    def begin_snapshot(self) -> None:
        """Of the state as it is now; one before it that has not ended is dropped."""

    def snapshot_part(self, most_blocks: int, /) -> bytes:
        """The next part; empty after the last one. MemoryError: there is no snapshot."""

    def restore(self, part: bytes, /) -> None:
        """Into a new state. ValueError if it is not a part of a snapshot of this plan."""

    def end_restore(self, serial: int, evicted: int, evicted_live: int, without_time: int, incomplete: int, /) -> None: ...

def velocity_apply(
    plan: VelocityPlan,
    states: dict[int, VelocityState],  # by partition
    inputs: Buffer,  # int64 (n, words)
    matrix: Buffer,  # float32 (n, width)
    n_records: int,  # of the batch
    partitions: Buffer | None,  # int32 (n_records,); None: all are of partition 0
    indices: Buffer | None,  # int32 (n,): the record of each row
    timestamps: Buffer | None,  # int64 (n_records,): ms of Kafka, -1 for none
    offsets: Buffer | None,  # int64 (n_records,)
    /,
) -> None:
    """Fill the columns of velocity features.

    LookupError for a partition without a state, and for an offset that its state has left behind.
    """

class Decoder:
    """Belongs to one thread: it learns orders of fields."""

    def __init__(
        self,
        variant: str,
        width: int,
        branches: tuple[Any, ...],
        fields: tuple[Any, ...],
        identifier_slot: int,
        record_format: int = 0,
        n_inputs: int = 0,
        n_values: int = 0,
        hash_key: bytes = b"",
    ) -> None: ...
    def decode(
        self,
        values: Values,
        matrix: Buffer,  # float32 (n, width)
        indices: Buffer,  # int32 (n,)
        starts: Buffer,  # int64 (n,)
        lengths: Buffer,  # int64 (n,)
        inputs: Buffer,  # int64 (n, n_inputs)
        hand_over: Callable[[int, int], bytes | None],
        reject: Callable[[int, int, int, int, bytes | None], None],
        /,
    ) -> tuple[int, int, bytes]: ...
    def add_schema(self, number: int, program: tuple[Any, ...] | bool | None, /) -> None: ...
    def unknown_schemas(self, values: Values, /) -> list[tuple[int, int]]:
        """(index, id) of records whose schema was not added."""

    def statistics(self) -> Mapping[str, int]: ...

class Results(Sequence[bytes]):
    """Made by `encode`. Immutable."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...

class MessageBatch:
    """Consumed records, made by `poll`. Immutable."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: int, /) -> bytes | None: ...
    def origin(self, index: int, /) -> Any:
        """Of the type that the ConsumerQueue was given."""

    def positions(self) -> dict[tuple[str, int], int]: ...
    def timestamps(self, into: NDArray[np.int64], /) -> None: ...
    def places(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64], /) -> None: ...
    def with_header(self, name: str, /) -> list[tuple[int, bytes | None]]: ...
    def beyond(self, most_bytes: int, earliest_ms: int, latest_ms: int, needs_key: bool, /) -> list[int]: ...

Polled = tuple[MessageBatch, list[tuple[int, str]]]

class ConsumerQueue:
    """A queue that partitions of a consumer are forwarded to."""

    def __init__(self, consumer: Any, handle: int, origin_type: Callable[..., Any]) -> None:
        """Raises ValueError where librdkafka knows no consumer of this handle."""

    def attach(self, topic: str, partition: int, /) -> None: ...
    def poll(self, most: int, wait_ms: int, /) -> Polled: ...
    def close(self) -> None:
        """Before the consumer is closed. Another thread may be in `poll`."""

class ResultProducer:
    """Produces results on a producer; deliveries are counted by partition."""

    def __init__(self, producer: Any, handle: int, topic: str) -> None:
        """Raises ValueError where librdkafka knows no producer of this handle."""

    def send(self, batch: MessageBatch, indices: Buffer, results: Results, first: int, /) -> tuple[int, int, bytes | None]:
        """Next place of `indices`, error code (0), and the mark for `delivered` once all are sent."""

    def delivered(self, mark: bytes, /) -> bool: ...
    def failure(self) -> int:
        """Error code of the first message that was not delivered, or 0."""

class FastPath:
    """Consumes, scores and produces a few records without Python."""

    def __init__(self, queue: ConsumerQueue, producer: ResultProducer) -> None: ...
    def use_model(
        self,
        model: tuple[Decoder, Plan, Program, float, Pieces, tuple[VelocityPlan, dict[int, VelocityState]] | None] | None,
        marker: Array[c_int64],
        late_ms: float,
        demands: tuple[int, float, float, bool],  # most bytes; ms before and after now; needs a key
        /,
    ) -> None: ...
    def poll(self, most: int, wait_ms: int, few: int, /) -> Polled: ...
    def in_flight(self) -> int: ...
    def in_flight_positions(self) -> dict[int, int]: ...
    def drop_partition(self, partition: int, /) -> None: ...
    def drain_acknowledged(self) -> tuple[dict[int, int], bytes, bytes, bytes, int]:
        """Positions by partition; numbers of each batch; timestamps and scores of each record; how many are flagged."""

    @staticmethod
    def print_score(score: float, /) -> bytes: ...
