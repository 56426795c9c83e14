"""Which keys and rows a sample takes: decided by a hash of the key alone, so that other data change nothing."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def key_hashes(keys: Iterable[str | None], seed: int) -> Hashes:
    """64 even bits for each key, others with each seed."""
    salt = seed.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b
    parts = [digest((key or "").encode(), digest_size=8, key=salt).digest() for key in keys]
    return np.frombuffer(b"".join(parts), "<u8").astype(np.uint64)


def row_hashes(keys: Hashes, anchors_us: NDArray[np.int64], numbers: NDArray[np.int64]) -> Hashes:
    """64 even bits for each row, of its key's hash, its moment and its number among the supplied."""
    mixed: Hashes = _mix(keys ^ _mix(anchors_us.astype(np.uint64)) ^ _mix(numbers.astype(np.uint64) + np.uint64(1)))
    return mixed


def taken(hashes: Hashes, fractions: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a sample of such a fraction takes what has the hash; a fraction of 1 takes all."""
    # The upper 53 bits: a double holds them exactly, and is below 1.
    shares = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
    result: NDArray[np.bool_] = shares < fractions
    return result


def _mix(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (public domain, S. Vigna)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
