"""Snapshots of histories: taken while records come, in parts of any size, they restore the state as it was at the beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saker.engine.errors import HistoryMissing
from saker.engine.history.snapshot_file import Header, NoSnapshot, SnapshotFolder
from tests.engine.history.streams import START
from tests.engine.history.test_state import ALL, NATIVE, Stream

DEFINITION = bytes(range(32))
COUNTS = ("serial", "evicted", "evicted_live", "without_time", "incomplete")


def header_of(statistics: dict[str, int], limit: int = 1 << 24) -> Header:
    counts = {name: statistics[name] for name in (*COUNTS, "keys", "next_offset", "complete_from_ms")}
    return Header(definition=DEFINITION.hex(), partition=3, limit=limit, **counts)


def restored(stream: Stream, header: Header, parts: list[bytes]) -> Any:
    assert NATIVE is not None
    state = NATIVE.VelocityState(stream.plan, header.limit, header.next_offset, header.complete_from_ms)
    for part in parts:
        state.restore(part)
    state.end_restore(*(getattr(header, name) for name in COUNTS))
    return state


def stream_of(seed: int, n: int, keys: int) -> Stream:
    random = np.random.default_rng(seed)
    times = START + np.cumsum(random.integers(0, 400, n)) - random.integers(0, 30_000, n) * (random.random(n) < 0.2)
    return Stream(ALL, times, random.integers(1, keys + 1, n), random.integers(-500, 500, n), random.integers(1, 9, n))


@given(
    seed=st.integers(0, 2**32),
    keys=st.sampled_from([1, 3, 50, 400]),
    before=st.integers(0, 600),
    between=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=12),
    limit=st.sampled_from([1 << 24, 40_000, 9_000]),
)
def test_it_is_the_state_as_it_was(seed: int, keys: int, before: int, between: list[tuple[int, int]], limit: int) -> None:
    stream = stream_of(seed, 1000, keys)
    offsets = np.arange(1000) * 2
    state = stream.state(limit)
    first = stream.part(slice(0, before))
    first.apply(state, 100, offsets[:before])
    header, parts, at = header_of(state.statistics(), limit), [], before
    state.begin_snapshot()
    for records, blocks in between:
        stream.part(slice(at, at + records)).apply(state, 7, offsets[at : at + records])
        at = min(at + records, 1000)
        parts.append(state.snapshot_part(blocks))
    while part := state.snapshot_part(10):
        parts.append(part)
    assert state.snapshot_part(10) == b""
    # What comes after it is the same for the state as for one that is restored from it.
    expected = stream.state(limit)
    first.apply(expected, 100, offsets[:before])
    again = restored(stream, header, parts)
    assert again.statistics() == expected.statistics()
    rest = stream.part(slice(before, None))
    assert rest.apply(again, 50, offsets[before:]).tobytes() == rest.apply(expected, 50, offsets[before:]).tobytes()
    assert again.statistics() == expected.statistics()


def test_a_second_one_begins_anew() -> None:
    stream = stream_of(1, 500, 40)
    state = stream.state()
    stream.part(slice(0, 250)).apply(state)
    state.begin_snapshot()
    state.snapshot_part(3)
    stream.part(slice(250, 500)).apply(state)
    state.begin_snapshot()
    again = restored(stream, header_of(state.statistics()), [state.snapshot_part(1000)])
    assert again.statistics() == state.statistics()


@pytest.mark.parametrize("damage", ["length", "key set", "list", "twice", "zeros", "rest"])
def test_other_bytes_are_refused(damage: str) -> None:
    stream = stream_of(2, 10, 1)
    state = stream.state()
    stream.apply(state)
    state.begin_snapshot()
    words = np.frombuffer(state.snapshot_part(10), np.int64).copy()
    match damage:
        case "length":
            words[2] += 1  # in the place of the neighbours
        case "key set":
            words[3] |= 7 << 8
        case "list":
            words[6] = 61
        case "twice":
            words = np.tile(words, 2)
        case "zeros":
            words[:2] = 0
        case "rest":
            words = words[:-1]
    with pytest.raises(ValueError, match="not a part"):
        stream.state().restore(words.tobytes())


def file_in(folder: SnapshotFolder, parts: list[bytes], header: Header) -> Path:
    writer = folder.write(header)
    assert folder.open(DEFINITION, 3) is None
    for part in parts:
        writer.add(part)
    writer.close()
    writer.publish()
    (path,) = folder.path.glob("*.snapshot")
    return path


HEADER = Header(DEFINITION.hex(), 3, 10, 77, -5, 1, 1, 0, 0, 0, 0)


def test_a_file_has_the_parts(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "state", "a/b ..", "topic")
    file_in(folder, [b"first", b"second" * 1000], HEADER)
    reader = folder.open(DEFINITION, 3)
    assert reader is not None
    assert reader.header == HEADER
    assert list(reader.parts()) == [b"first", b"second" * 1000]
    assert not list(folder.path.glob("*.part"))
    assert folder.open(DEFINITION, 4) is None
    assert (tmp_path / "state/key").stat().st_mode & 0o777 == 0o600
    assert SnapshotFolder(tmp_path / "state", "other", "topic").hash_key == folder.hash_key


@pytest.mark.parametrize("at", [0, 20, 200, 290, -1])
@pytest.mark.parametrize("how", ["changed", "cut off", "another key"])
def test_a_damaged_file_is_not_used(tmp_path: Path, at: int, how: str) -> None:
    folder = SnapshotFolder(tmp_path, "group", "topic")
    path = file_in(folder, [b"first", b"second"], HEADER)
    data = bytearray(path.read_bytes())
    if how == "changed":
        data[at] ^= 1
    elif how == "cut off":
        del data[at:]
    else:
        folder.hash_key = bytes(16)
    path.write_bytes(data)
    reader = folder.open(DEFINITION, 3)
    if reader is not None:
        with pytest.raises(NoSnapshot):
            list(reader.parts())


def test_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, "group", "topic")
    folder.check_partitions(8, accept=False)
    folder.check_partitions(8, accept=False)
    with pytest.raises(HistoryMissing, match=r"had 8 partitions and has 9 now.*--state-cold-start"):
        folder.check_partitions(9, accept=False)
    folder.check_partitions(9, accept=True)
    folder.check_partitions(9, accept=False)
