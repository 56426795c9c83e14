"""Primitives of the protobuf wire format over a byte array, compiled.

All take `data` (the bytes), a start and an end, and never read outside of them. Where the bytes are malformed, or right
in a way that no ordinary encoder writes (a varint longer than needed, a group), they answer STRANGE as the next offset:
the caller then leaves the judgement to the protobuf library.
"""

import numpy as np
from numpy.typing import NDArray

from services.kernel.jit import compiled, inlined

STRANGE = -1
"""In place of the next offset: malformed, or to be judged by the protobuf library."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_ONE = np.uint64(1)
_HIGH_BITS = np.uint64(0x8080808080808080)
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)

Bytes = NDArray[np.uint8]


@inlined
def mix(x: np.uint64) -> np.uint64:
    """MurmurHash3's finaliser: spreads all bits of a 64-bit number."""
    x ^= x >> np.uint64(33)
    x *= _M1
    x ^= x >> np.uint64(33)
    x *= _M2
    return x ^ (x >> np.uint64(33))


@inlined
def signed(value: np.uint64 | int) -> int:
    """The same 64 bits as a signed number."""
    return int(np.int64(value))


@inlined
def varint(data: Bytes, p: int, end: int) -> tuple[np.uint64, int]:
    """A varint and the offset behind it."""
    if p >= end:
        return np.uint64(0), STRANGE
    byte = np.uint64(data[p])
    if byte < 128:
        return byte, p + 1
    value = byte & np.uint64(127)
    for shift in range(7, 64, 7):
        p += 1
        if p >= end:
            return np.uint64(0), STRANGE
        byte = np.uint64(data[p])
        value |= (byte & np.uint64(127)) << np.uint64(shift)
        if byte < 128:
            if shift == 63 and byte > _ONE:
                return np.uint64(0), STRANGE
            return value, p + 1
    return np.uint64(0), STRANGE


@inlined
def length(data: Bytes, p: int, end: int) -> tuple[int, int]:
    """The size of what follows, and the offset where it starts; it lies within the end."""
    size, p = varint(data, p, end)
    if p < 0 or size > np.uint64(end - p):
        return 0, STRANGE
    return signed(size), p


@inlined
def skip(data: Bytes, p: int, end: int, tag: np.uint64) -> int:
    """The offset behind an unknown field whose tag was just read."""
    field = tag >> np.uint64(3)
    if field == 0 or field >= np.uint64(1 << 29):
        return STRANGE
    wire = signed(tag & np.uint64(7))
    if wire == VARINT:
        _, p = varint(data, p, end)
        return p
    if wire == BYTES:
        size, p = length(data, p, end)
        return p + size if p >= 0 else STRANGE
    if wire == FIXED64 and end - p >= 8:
        return p + 8
    if wire == FIXED32 and end - p >= 4:
        return p + 4
    return STRANGE


@inlined
def load64(data: Bytes, p: int) -> np.uint64:
    """Eight bytes, little-endian. (Unsigned indexes, so that the compiler makes one load of it.)"""
    q = np.uint64(p)
    return (
        np.uint64(data[q])
        | (np.uint64(data[q + _ONE]) << np.uint64(8))
        | (np.uint64(data[q + np.uint64(2)]) << np.uint64(16))
        | (np.uint64(data[q + np.uint64(3)]) << np.uint64(24))
        | (np.uint64(data[q + np.uint64(4)]) << np.uint64(32))
        | (np.uint64(data[q + np.uint64(5)]) << np.uint64(40))
        | (np.uint64(data[q + np.uint64(6)]) << np.uint64(48))
        | (np.uint64(data[q + np.uint64(7)]) << np.uint64(56))
    )


@inlined
def load_tail(data: Bytes, p: int, size: int) -> np.uint64:
    """Fewer than eight bytes, little-endian, filled with zeros."""
    if size == 0:
        return np.uint64(0)
    if p + 8 <= len(data):
        return load64(data, p) & ((_ONE << np.uint64(8 * size)) - _ONE)
    word = np.uint64(0)
    for i in range(size):
        word |= np.uint64(data[p + i]) << np.uint64(8 * i)
    return word


@inlined
def hash_text(data: Bytes, p: int, size: int, seed: np.uint64) -> tuple[np.uint64, np.uint64, bool]:
    """Hashes of a text: (the same in every process, by a secret odd seed for hash tables, whether it is UTF-8).

    The secret makes it impossible to send texts that all fall into one slot.
    """
    plain = np.uint64(size) * _PRIME
    secret = np.uint64(size) ^ seed
    high = np.uint64(0)
    end = p + size
    q = p
    while end - q >= 8:
        word = load64(data, q)
        high |= word
        plain = (plain ^ word) * _PRIME
        plain ^= plain >> np.uint64(29)
        secret = (secret ^ word) * seed
        secret ^= secret >> np.uint64(32)
        q += 8
    word = load_tail(data, q, end - q)
    high |= word
    plain = mix((plain ^ word) * _PRIME)
    secret = (secret ^ word) * seed
    secret ^= secret >> np.uint64(32)
    return plain, secret, (high & _HIGH_BITS) == 0 or is_utf8(data, p, end)


@compiled
def is_utf8(data: Bytes, p: int, end: int) -> bool:
    """Whether the bytes are well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong, at most U+10FFFF)."""
    while p < end:
        first = signed(data[p])
        p += 1
        if first < 0x80:
            continue
        if 0xC2 <= first <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= first <= 0xEF:
            more = 2
            low = 0xA0 if first == 0xE0 else 0x80
            high = 0x9F if first == 0xED else 0xBF
        elif 0xF0 <= first <= 0xF4:
            more = 3
            low = 0x90 if first == 0xF0 else 0x80
            high = 0x8F if first == 0xF4 else 0xBF
        else:
            return False
        if end - p < more or not low <= data[p] <= high:
            return False
        for i in range(1, more):
            if not 0x80 <= data[p + i] <= 0xBF:
                return False
        p += more
    return True


@inlined
def same(data: Bytes, a: int, b: int, size: int) -> bool:
    """Whether two stretches of equal size are equal."""
    while size >= 8:
        if load64(data, a) != load64(data, b):
            return False
        a += 8
        b += 8
        size -= 8
    return bool(load_tail(data, a, size) == load_tail(data, b, size))


@compiled
def has_control(data: Bytes, p: int, size: int) -> bool:
    """Whether a UTF-8 text has a control character (Unicode's category Cc: C0, DEL and C1)."""
    for i in range(p, p + size):
        byte = data[i]
        if byte < 0x20 or byte == 0x7F or (byte == 0xC2 and i + 1 < p + size and data[i + 1] < 0xA0):
            return True
    return False


@compiled
def characters(data: Bytes, p: int, size: int) -> int:
    """How many characters a UTF-8 text has."""
    count = 0
    for i in range(p, p + size):
        count += (data[i] & 0xC0) != 0x80
    return count
