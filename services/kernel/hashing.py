"""Hashes that are the same on every machine and in every run."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from services.kernel.jit import compiled

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)


def content_fingerprint(parts: Iterable[str]) -> int:
    """A 64-bit hash of a set of texts, whatever their order."""
    total = 0
    for part in parts:
        total += int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
    return total & 0xFFFFFFFFFFFFFFFF


@compiled
def _rotate(x: np.uint64, r: int) -> np.uint64:
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@compiled
def mix64(x: np.uint64) -> np.uint64:
    """MurmurHash3's finaliser: spreads all bits of a 64-bit number."""
    x ^= x >> np.uint64(33)
    x *= _M1
    x ^= x >> np.uint64(33)
    x *= _M2
    x ^= x >> np.uint64(33)
    return x


@compiled
def _word(data: NDArray[np.uint8], start: int) -> np.uint64:
    """Eight bytes, little-endian."""
    word = np.uint64(0)
    for i in range(8):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@compiled
def _last_word(data: NDArray[np.uint8], start: int, end: int, length: int) -> np.uint64:
    """The bytes [start, end), at most eight, little-endian; read as a whole word where there are bytes before them."""
    if length >= 8:
        return _word(data, end - 8) >> np.uint64(8 * (8 - (end - start)))
    word = np.uint64(0)
    for i in range(end - start):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@compiled
def hash128(data: NDArray[np.uint8], start: int, end: int) -> tuple[np.uint64, np.uint64]:
    """MurmurHash3 x64 128 of data[start:end], seed 0 (public domain, A. Appleby)."""
    length = end - start
    h1 = np.uint64(0)
    h2 = np.uint64(0)
    blocks = length // 16
    for block in range(blocks):
        base = start + block * 16
        k1 = _word(data, base)
        k2 = _word(data, base + 8)
        h1 ^= _rotate(k1 * _C1, 31) * _C2
        h1 = (_rotate(h1, 27) + h2) * np.uint64(5) + np.uint64(0x52DCE729)
        h2 ^= _rotate(k2 * _C2, 33) * _C1
        h2 = (_rotate(h2, 31) + h1) * np.uint64(5) + np.uint64(0x38495AB5)
    k1 = np.uint64(0)
    k2 = np.uint64(0)
    base = start + blocks * 16
    tail = length & 15
    if tail > 8:
        k1 = _word(data, base)
        k2 = _last_word(data, base + 8, end, length)
    elif tail:
        k1 = _last_word(data, base, end, length)
    h2 ^= _rotate(k2 * _C2, 33) * _C1
    h1 ^= _rotate(k1 * _C1, 31) * _C2
    h1 ^= np.uint64(length)
    h2 ^= np.uint64(length)
    h1 += h2
    h2 += h1
    h1 = mix64(h1)
    h2 = mix64(h2)
    h1 += h2
    h2 += h1
    return h1, h2
