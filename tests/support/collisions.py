"""Pairs of keys with one hash in the native decoder's tables, as only somebody can make who knows the key of this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saker.engine.kernels import Native

_MASK = (1 << 64) - 1
_ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", np.uint8)
LENGTH = 16

Key = Sequence[int]


def _mix(low: int, high: int, key: Key) -> int:
    product = (low ^ key[0]) * (high ^ key[1])
    return (product & _MASK) ^ (product >> 64)


def _seed(key: Key) -> int:
    """Of the first try of text_table_build."""
    return _mix(0, key[2], key)


def text_hash(text: bytes, key: Key) -> int:
    """text_hash of native/rows/table.h, for texts of 16 bytes."""
    low, high = (int.from_bytes(text[start : start + 8], "little") for start in (0, 8))
    seed = _seed(key)
    return _mix(low ^ seed, high ^ len(text) ^ (seed << 32 & _MASK | seed >> 32), key)


def pairs(native: Native, wanted: int, rng_seed: int = 1) -> list[tuple[str, str]]:
    """Different ASCII keys of 16 bytes with one hash. The product of a multiple of q and one of p has many factorings."""
    key = native.hash_key()
    seed = _seed(key)
    low_key, high_key = np.uint64(seed ^ key[0]), np.uint64(LENGTH ^ (seed << 32 & _MASK | seed >> 32) ^ key[1])
    rng = np.random.default_rng(rng_seed)
    found: dict[str, str] = {}
    while len(found) < wanted:
        raw = _ALPHABET[rng.integers(0, len(_ALPHABET), (200_000, LENGTH))]
        words = raw.copy().view("<u8")
        a, b = words[:, 0] ^ low_key, words[:, 1] ^ high_key
        for p in range(2, 24):
            for q in range(2, 24):
                if p == q or not 0.5 < p / q < 2:
                    continue
                at = np.flatnonzero((a % np.uint64(q) == 0) & (b % np.uint64(p) == 0))
                a1, b1 = a[at] // np.uint64(q), b[at] // np.uint64(p)
                fits = (a1 <= np.uint64(_MASK // p)) & (b1 <= np.uint64(_MASK // q))
                at, a1, b1 = at[fits], a1[fits], b1[fits]
                others = np.stack([(a1 * np.uint64(p)) ^ low_key, (b1 * np.uint64(q)) ^ high_key], 1).view(np.uint8)
                for one, other in zip(raw[at], others.reshape(-1, LENGTH), strict=True):
                    if (other < 0x80).all():
                        pair = bytes(one), bytes(other)
                        assert text_hash(pair[0], key) == text_hash(pair[1], key)
                        found.setdefault(pair[0].decode(), pair[1].decode())
    return list(found.items())[:wanted]
