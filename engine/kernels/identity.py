"""Identities: a value of a record with its type as 16 bytes, by a keyed hash. Keys of velocity features are made of them.

    "7" --> t7      7, 7.0, 7e0 --> n+7      7.5 --> f and its float64      true --> b1      --hash--> 16 bytes, never 0

The hash has a secret key, so nobody can choose values that collide, and what is stored does not show what it stands for.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable

from saker.engine.kernels import Native

#: Bytes of `identity_bytes` -> their hash.
Identify = Callable[[bytes], bytes]
#: Of a process that keeps no state, such as training.
NO_KEY = bytes(16)

_WHOLE = re.compile(r"(-?)([0-9]+)(?:\.0+)?")
_MOST = 2**64


def identity_bytes(content: str | float, *, is_number: bool) -> bytes:
    """What is hashed of a value: a text, a number as text (is_number), a float64 or a boolean.

    Whole numbers below 2**64 are exact however they are written; other numbers count as float64.
    """
    if isinstance(content, bool):
        return b"b\1" if content else b"b\0"
    if isinstance(content, str):
        if not is_number:
            return b"t" + content.encode()
        whole = _WHOLE.fullmatch(content)
        if whole is not None and (size := int(whole[2])) < _MOST:
            return _whole(size, is_negative=whole[1] == "-")
        content = float(content)
    if content.is_integer() and abs(content) < _MOST:
        return _whole(int(abs(content)), is_negative=content < 0)
    return b"f" + struct.pack("<d", content)


def _whole(size: int, *, is_negative: bool) -> bytes:
    return (b"n-" if is_negative and size else b"n+") + struct.pack("<Q", size)


def identify(native: Native | None, key: bytes) -> Identify:
    """The hash with this key (16 bytes): SipHash-2-4 of 128 bits where the kernels run, else BLAKE2b."""
    if native is not None:
        return lambda data: native.identity(key, data)
    return lambda data: hashlib.blake2b(data, digest_size=16, key=key).digest()


#: Without kernels and without a secret.
UNKEYED = identify(None, NO_KEY)
