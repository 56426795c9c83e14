"""Counts each event id once: the deterministic half of exactly-once effects.

The log may hold an event twice (a client's retry, a redelivery). The first in the log wins; later ones within the
horizon, measured in received time, have no effect. Corrections take effect when their revision is higher than that of
the version they replace; a deleted id stays deleted. What a log's records do depends on the log alone, so every reader
of it agrees.

Ids are held as 128-bit hashes (MurmurHash3): at a billion ids the odds of any collision are below 1 in 10^20.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.columns import EventBatch
from services.kernel.hashing import hash128
from services.kernel.jit import compiled

IGNORED, ADDED, REPLACED, RETRACTED = 0, 1, 2, 3
_DELETED = np.int32(2**31 - 1)
"""The revision of a deleted id: none is higher."""
_START_CAPACITY = 1024


class Resolution(NamedTuple):
    """What the records of a batch do."""

    actions: NDArray[np.int8]
    """IGNORED, ADDED, REPLACED (the version before goes, this one comes) or RETRACTED (the version before goes)."""
    id_hashes: NDArray[np.uint64]
    """64 bits of the hash of each id."""


class _Table(NamedTuple):
    """Open addressing by the first hash; an entry with received == EMPTY is free."""

    hash1: NDArray[np.uint64]
    hash2: NDArray[np.uint64]
    received: NDArray[np.int64]
    fingerprint: NDArray[np.uint64]
    revision: NDArray[np.int32]


_EMPTY = np.int64(-(2**63))


def _new_table(capacity: int) -> _Table:
    return _Table(
        np.zeros(capacity, np.uint64),
        np.zeros(capacity, np.uint64),
        np.full(capacity, _EMPTY, np.int64),
        np.zeros(capacity, np.uint64),
        np.zeros(capacity, np.int32),
    )


class Deduplicator:
    """Remembers the ids of a project's events for `horizon_us` of received time."""

    def __init__(self, horizon_us: int) -> None:
        self.horizon_us = horizon_us
        self.duplicates = 0
        """Records that had no effect because their id was known."""
        self.conflicts = 0
        """Those among them that carried another content than the first."""
        self._table = _new_table(_START_CAPACITY)
        self._used = 0
        self._newest = np.full(1, _EMPTY)

    def __len__(self) -> int:
        return self._used

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(array.nbytes for array in self._table)

    def admit(self, batch: EventBatch) -> NDArray[np.bool_]:
        """Marks the records that take effect, in log order."""
        effective: NDArray[np.bool_] = self.resolve(batch).actions != IGNORED
        return effective

    def resolve(self, batch: EventBatch) -> Resolution:
        """Says what each record does, in log order, and remembers the ids."""
        rows = batch.num_rows
        self._reserve(rows)
        offsets, content = batch.event_ids
        actions = np.zeros(rows, np.int8)
        hashes = np.zeros(rows, np.uint64)
        added, duplicates, conflicts = _resolve(
            self._table,
            offsets,
            content,
            batch.received_at,
            batch.fingerprint,
            batch.operation,
            batch.revision,
            np.int64(self.horizon_us),
            self._newest,
            actions,
            hashes,
        )
        self._used += added
        self.duplicates += duplicates
        self.conflicts += conflicts
        return Resolution(actions, hashes)

    def _reserve(self, rows: int) -> None:
        """Makes room for so many more ids, first by dropping those beyond the horizon."""
        capacity = len(self._table.received)
        if (self._used + rows) * 5 <= capacity * 3:
            return
        oldest = max(int(self._newest[0]) - self.horizon_us, int(_EMPTY))
        live = (self._table.received > oldest) | (self._table.revision != 0)
        needed = int(live.sum()) + rows
        while needed * 5 > capacity * 2:
            capacity *= 2
        table = _new_table(capacity)
        self._used = _rehash(self._table, table, live)
        self._table = table

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The state as arrays, for a snapshot."""
        used = self._table.received != _EMPTY
        arrays: dict[str, NDArray[np.generic]] = {name: array[used] for name, array in self._table._asdict().items()}
        counters = [self.horizon_us, self.duplicates, self.conflicts, int(self._newest[0])]
        return arrays | {"counters": np.array(counters, np.int64)}

    @classmethod
    def load(cls, arrays: dict[str, NDArray[np.generic]]) -> "Deduplicator":
        """The state back from its arrays."""
        horizon_us, duplicates, conflicts, newest = (int(value) for value in arrays["counters"].tolist())
        self = cls(horizon_us)
        self.duplicates, self.conflicts = duplicates, conflicts
        kept = _Table(*(np.ascontiguousarray(arrays[name]) for name in _Table._fields))
        self._reserve(len(kept.received))
        self._newest[0] = newest
        self._used = _rehash(kept, self._table, np.ones(len(kept.received), np.bool_))
        return self


@compiled
def _slot(table: _Table, h1: np.uint64, h2: np.uint64) -> int:
    """The slot of an id, or the free one where it belongs."""
    mask = len(table.received) - 1
    slot = np.int64(h1 & np.uint64(mask))
    while table.received[slot] != _EMPTY and (table.hash1[slot] != h1 or table.hash2[slot] != h2):
        slot = (slot + 1) & mask
    return int(slot)


@compiled
def _resolve(
    table: _Table,
    offsets: NDArray[np.int32],
    content: NDArray[np.uint8],
    received: NDArray[np.int64],
    fingerprint: NDArray[np.uint64],
    operation: NDArray[np.int8],
    revision: NDArray[np.int32],
    horizon: np.int64,
    newest: NDArray[np.int64],
    actions: NDArray[np.int8],
    hashes: NDArray[np.uint64],
) -> tuple[int, int, int]:
    added = 0
    duplicates = 0
    conflicts = 0
    for i in range(len(received)):
        # Replicas' clocks differ a little: the horizon reaches back from the newest receipt so far, so that what is
        # forgotten does not depend on when there was room.
        newest[0] = max(newest[0], received[i])
        h1, h2 = hash128(content, offsets[i], offsets[i + 1])
        hashes[i] = h1
        slot = _slot(table, h1, h2)
        known = table.received[slot] != _EMPTY
        current = table.revision[slot] if known else np.int32(0)
        if operation[i] == 0:
            # What was corrected is remembered for good, other ids for the horizon.
            if known and (current != 0 or newest[0] - table.received[slot] < horizon):
                duplicates += 1
                if current == 0 and fingerprint[i] != table.fingerprint[slot]:
                    conflicts += 1
                continue
            actions[i] = ADDED
        elif current == _DELETED or (operation[i] == 1 and revision[i] <= current):
            duplicates += 1
            continue
        else:
            actions[i] = REPLACED if operation[i] == 1 else RETRACTED
        if not known:
            added += 1
        table.hash1[slot] = h1
        table.hash2[slot] = h2
        table.received[slot] = received[i]
        table.fingerprint[slot] = fingerprint[i]
        table.revision[slot] = _DELETED if operation[i] == 2 else revision[i]
    return added, duplicates, conflicts


@compiled
def _rehash(source: _Table, target: _Table, wanted: NDArray[np.bool_]) -> int:
    count = 0
    for i in range(len(wanted)):
        if wanted[i]:
            slot = _slot(target, source.hash1[i], source.hash2[i])
            target.hash1[slot] = source.hash1[i]
            target.hash2[slot] = source.hash2[i]
            target.received[slot] = source.received[i]
            target.fingerprint[slot] = source.fingerprint[i]
            target.revision[slot] = source.revision[i]
            count += 1
    return count
