"""The events that an engine keeps: one row each, as growing columns.

Rows are numbered in the order of arrival; their order in time is (`occurred_at`, `event_id`), the total order of one
key's events. `flags` has a bit for each stream (a filter, or a filter with a term that is not null): it says which
aggregates the row belongs to. A row without bits is dead.
"""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.kernel.jit import compiled

T = TypeVar("T", bound=np.generic)


class Rows(NamedTuple):
    """The columns, each with room for more rows than there are."""

    times: NDArray[np.int64]
    keys: NDArray[np.int32]
    flags: NDArray[np.uint64]
    """Two-dimensional: rows by words of 64 streams."""
    id_hashes: NDArray[np.uint64]
    id_starts: NDArray[np.int64]
    id_lengths: NDArray[np.int16]
    id_bytes: NDArray[np.uint8]
    """The ids one after the other."""


class Bit(NamedTuple):
    """The place of a stream in the flags."""

    word: int
    mask: np.uint64


def stream_bit(index: int) -> Bit:
    """The bit of the stream of an index."""
    return Bit(index // 64, np.uint64(1 << (index % 64)))


class RowStore:
    """The rows of one engine and the terms of its streams."""

    def __init__(self, streams: int, terms: int) -> None:
        words = max(1, -(-streams // 64))
        self.count = 0
        self.bytes_used = 0
        self.columns = Rows(
            np.zeros(64, np.int64),
            np.zeros(64, np.int32),
            np.zeros((64, words), np.uint64),
            np.zeros(64, np.uint64),
            np.zeros(64, np.int64),
            np.zeros(64, np.int16),
            np.zeros(1024, np.uint8),
        )
        self.terms: list[NDArray[np.int64]] = [np.zeros(64, np.int64) for _ in range(terms)]
        """By term: codes of strings, integers, bits of doubles, 0 and 1, or microseconds."""

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(array.nbytes for array in self.columns) + sum(term.nbytes for term in self.terms)

    def append(
        self,
        times: NDArray[np.int64],
        keys: NDArray[np.int32],
        flags: NDArray[np.uint64],
        id_hashes: NDArray[np.uint64],
        ids: tuple[NDArray[np.int32], NDArray[np.uint8]],
        selected: NDArray[np.int64],
        terms: list[NDArray[np.int64]],
    ) -> NDArray[np.int32]:
        """Adds rows; all arrays but `ids` are aligned with `selected`, the rows of the batch. Returns their numbers."""
        offsets, content = ids
        lengths = (offsets[1:] - offsets[:-1])[selected]
        added, size = len(selected), int(lengths.sum())
        self._reserve(added, size)
        columns, start = self.columns, self.count
        end = start + added
        columns.times[start:end] = times
        columns.keys[start:end] = keys
        columns.flags[start:end] = flags
        columns.id_hashes[start:end] = id_hashes
        columns.id_lengths[start:end] = lengths
        columns.id_starts[start:end] = self.bytes_used + np.cumsum(lengths) - lengths
        _copy_ids(columns.id_bytes, self.bytes_used, content, offsets, selected)
        for target, source in zip(self.terms, terms, strict=True):
            target[start:end] = source
        self.count = end
        self.bytes_used += size
        return np.arange(start, end, dtype=np.int32)

    def _reserve(self, added: int, size: int) -> None:
        capacity = len(self.columns.times)
        if self.count + added > capacity:
            capacity = max(2 * capacity, self.count + added)
            old = self.columns
            self.columns = Rows(
                grown(old.times, capacity),
                grown(old.keys, capacity),
                grown(old.flags, capacity),
                grown(old.id_hashes, capacity),
                grown(old.id_starts, capacity),
                grown(old.id_lengths, capacity),
                old.id_bytes,
            )
            self.terms = [grown(array, capacity) for array in self.terms]
        if self.bytes_used + size > len(self.columns.id_bytes):
            room = max(2 * len(self.columns.id_bytes), self.bytes_used + size)
            self.columns = self.columns._replace(id_bytes=grown(self.columns.id_bytes, room))

    def event_id(self, row: int) -> str:
        """The id of a row's event."""
        start = int(self.columns.id_starts[row])
        return self.columns.id_bytes[start : start + int(self.columns.id_lengths[row])].tobytes().decode()

    def keep(self, kept: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Drops all rows but those marked. Returns the new number of each old row, -1 for dropped ones."""
        old = self.columns
        rows = np.flatnonzero(kept)
        renumbered = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        starts, lengths = old.id_starts[rows], old.id_lengths[rows].astype(np.int64)
        new_starts = np.cumsum(lengths) - lengths
        id_bytes = np.zeros(max(1024, int(lengths.sum())), np.uint8)
        _gather_ids(id_bytes, new_starts, old.id_bytes, starts, lengths)
        self.columns = Rows(
            old.times[rows],
            old.keys[rows],
            old.flags[rows],
            old.id_hashes[rows],
            new_starts,
            old.id_lengths[rows],
            id_bytes,
        )
        self.terms = [term[rows] for term in self.terms]
        self.count, self.bytes_used = len(rows), int(lengths.sum())
        # Places may be read where no row is, never used: there must be one.
        self._reserve(64, 0)
        return renumbered

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The rows as arrays, for a snapshot."""
        arrays: dict[str, NDArray[np.generic]] = dict(self.columns._asdict())
        arrays |= {f"term{i}": term for i, term in enumerate(self.terms)}
        return {name: a[: self.bytes_used if name == "id_bytes" else self.count] for name, a in arrays.items()}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Takes the rows back from their arrays."""
        self.columns = Rows(*(np.array(arrays[name]) for name in Rows._fields))
        self.terms = [np.array(arrays[f"term{i}"]) for i in range(len(self.terms))]
        self.count, self.bytes_used = len(arrays["times"]), len(arrays["id_bytes"])


def grown(array: NDArray[T], capacity: int, fill: int = 0) -> NDArray[T]:
    """The array with room for `capacity` entries, the new ones filled."""
    shape = (capacity, *array.shape[1:])
    # Zeros come from the system untouched: pages are paid for when they are used.
    result = np.full(shape, fill, array.dtype) if fill else np.zeros(shape, array.dtype)
    result[: len(array)] = array
    return result


@compiled
def _copy_ids(
    target: NDArray[np.uint8],
    position: int,
    content: NDArray[np.uint8],
    offsets: NDArray[np.int32],
    selected: NDArray[np.int64],
) -> None:
    for i in range(len(selected)):
        for j in range(offsets[selected[i]], offsets[selected[i] + 1]):
            target[position] = content[j]
            position += 1


@compiled
def _gather_ids(
    target: NDArray[np.uint8],
    target_starts: NDArray[np.int64],
    source: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> None:
    for i in range(len(starts)):
        for j in range(lengths[i]):
            target[target_starts[i] + j] = source[starts[i] + j]


@compiled
def precedes(rows: Rows, a: int, b: int) -> bool:
    """Whether row a comes before row b in the total order (time, then event id)."""
    if rows.times[a] != rows.times[b]:
        return bool(rows.times[a] < rows.times[b])
    start_a, start_b = rows.id_starts[a], rows.id_starts[b]
    length_a, length_b = rows.id_lengths[a], rows.id_lengths[b]
    for i in range(min(length_a, length_b)):
        x, y = rows.id_bytes[start_a + i], rows.id_bytes[start_b + i]
        if x != y:
            return bool(x < y)
    return bool(length_a < length_b)
