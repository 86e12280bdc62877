"""Histories on disk. A snapshot is a cache: without one, or with a damaged one, the log is replayed.

    FOLDER/key                                   secret of the identities (16 bytes), for all that share the folder
    FOLDER/GROUP/TOPIC-ID/partitions             how many partitions the topic had
    FOLDER/GROUP/TOPIC-ID/DEFINITION-N.snapshot  of partition N

    file: magic | header, a line of JSON | parts: length (4 bytes), MAC (16), data | a part of length 0

The MAC of a part is over all before it, so a file that is cut off, mixed up or made by others is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from saker.engine.errors import HistoryMissing, ServingError

_MAGIC = b"saker history 1\n"
_KEY_BYTES = _MAC_BYTES = 16
_MOST_HEADER, _MOST_PART = 1 << 16, 1 << 30
_LENGTH = struct.Struct("<I")


class NoSnapshot(Exception):
    """A file is not a snapshot that can be used. The text says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot is of, and the counts of its state. offset: records before it are in the history.

    limit: of the state in bytes, which decides what it has dropped.
    """

    definition: str
    partition: int
    limit: int
    next_offset: int
    complete_from_ms: int
    serial: int
    keys: int
    evicted: int
    evicted_live: int
    without_time: int
    incomplete: int

    @property
    def offset(self) -> int:
        return self.next_offset


class SnapshotFolder:
    """The folder of one consumer group for one topic."""

    def __init__(self, folder: Path, group: str, topic: str) -> None:
        """topic: its id. Raises `ServingError` where the folder cannot be used."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.hash_key = _key_in(folder)
            self.path = folder / f"group-{quote(group, safe='')}" / quote(topic, safe="")
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unusable(folder, error) from error

    def check_partitions(self, count: int, *, accept: bool) -> None:
        """Raises `HistoryMissing` if the topic had another number of partitions; accept: note the new one instead."""
        noted = self.path / "partitions"
        with contextlib.suppress(OSError, ValueError):
            before = int(noted.read_text())
            if before == count:
                return
            if not accept:
                raise HistoryMissing(
                    f"the topic had {before} partitions and has {count} now: keys have changed their partition, so their "
                    f"histories ({noted.parent}) are split; start with --state-cold-start to accept incomplete velocity "
                    "features until the longest window has passed"
                )
        _replace(noted, str(count).encode())

    def open(self, definition: bytes, partition: int) -> SnapshotReader | None:
        """The snapshot of a partition. Its header is read and not proven until all parts are."""
        try:
            return SnapshotReader(self._file(definition, partition).open("rb"), self.hash_key)
        except (OSError, NoSnapshot):
            return None

    def write(self, header: Header) -> SnapshotWriter:
        """Raises OSError."""
        return SnapshotWriter(self._file(bytes.fromhex(header.definition), header.partition), header, self.hash_key)

    def _file(self, definition: bytes, partition: int) -> Path:
        return self.path / f"{definition.hex()[:16]}-{partition}.snapshot"


class SnapshotWriter:
    """Nothing is seen of the file until `publish`. Raises OSError."""

    def __init__(self, path: Path, header: Header, hash_key: bytes) -> None:
        self._path = path
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
        self._name, self._file = Path(name), os.fdopen(handle, "wb")
        self._mac = hashlib.blake2b(key=hash_key, digest_size=_MAC_BYTES)
        head = _MAGIC + json.dumps(asdict(header)).encode() + b"\n"
        self._file.write(head)
        self._mac.update(head)

    def add(self, part: bytes) -> None:
        """part: not empty; an empty one ends the file."""
        self._mac.update(_LENGTH.pack(len(part)))
        self._mac.update(part)
        self._file.write(_LENGTH.pack(len(part)))
        self._file.write(self._mac.copy().digest())
        self._file.write(part)

    def close(self) -> None:
        """All parts are there, and on the disk when this returns."""
        self.add(b"")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> None:
        """After `close`."""
        self._name.replace(self._path)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            self._name.unlink()


class SnapshotReader:
    """Raises `NoSnapshot` for anything that `SnapshotWriter` did not write with this key."""

    def __init__(self, file: BinaryIO, hash_key: bytes) -> None:
        self._file = file
        self._mac = hashlib.blake2b(key=hash_key, digest_size=_MAC_BYTES)
        try:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise NoSnapshot("it does not begin as a snapshot")
            line = file.readline(_MOST_HEADER)
            self._mac.update(_MAGIC + line)
            self.header = _header(line)
        except NoSnapshot:
            file.close()
            raise

    def parts(self) -> Iterator[bytes]:
        """Each part is proven when it comes; the last one ends the iteration."""
        with self._file:
            while True:
                head = self._file.read(_LENGTH.size + _MAC_BYTES)
                if len(head) < _LENGTH.size + _MAC_BYTES:
                    raise NoSnapshot("it is cut off")
                (length,) = _LENGTH.unpack_from(head)
                part = self._file.read(min(length, _MOST_PART))
                self._mac.update(head[: _LENGTH.size])
                self._mac.update(part)
                if not secrets.compare_digest(self._mac.copy().digest(), head[_LENGTH.size :]):
                    raise NoSnapshot("it is damaged, or was written with another key")
                if not length:
                    return
                yield part

    def close(self) -> None:
        self._file.close()


def _header(line: bytes) -> Header:
    try:
        document: dict[str, Any] = json.loads(line)
        header = Header(**document)
    except (ValueError, TypeError) as error:
        raise NoSnapshot(f"its header is damaged: {error}") from None
    for item in fields(header):
        expected = str if item.name == "definition" else int
        if type(getattr(header, item.name)) is not expected:
            raise NoSnapshot(f"its header is damaged: {item.name}")
    return header


def _key_in(folder: Path) -> bytes:
    """The folder's key, made by whoever comes first."""
    path = folder / "key"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, prefix="key-") as scratch:  # mode 0600
            scratch.write(secrets.token_bytes(_KEY_BYTES))
            scratch.flush()
            os.fsync(scratch.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(scratch.name, path)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ServingError(
            f"{path} has {len(key)} bytes, expected {_KEY_BYTES}: remove it together with the snapshots in {folder}"
        )
    return key


def _replace(path: Path, content: bytes) -> None:
    """Raises `ServingError`."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as scratch:
            scratch.write(content)
        Path(scratch.name).replace(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ServingError:
    return ServingError(f"{path}: {error.strerror or error}; name a folder with --state that this user can write")
