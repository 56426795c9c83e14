"""Pairs: a key with one of its terms, how often it was seen and when last.

Each stream keeps its pairs in one hash table, each key's pairs in a list; each window counts the rows of each pair
inside it. A pair that no window counts any more is given up.
"""

from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates import pair_table
from services.kernel.aggregates.base import (
    Bounds,
    Memory,
    StreamState,
    WindowedState,
)
from services.kernel.aggregates.pair_table import NONE, Table
from services.kernel.rows import Bit, grown

_START = 64
_FEW = 16


class Pairs(StreamState):
    """The pairs of one stream. Its windows' counts fill it."""

    def __init__(self, memory: Memory, bit: Bit, term: int | None) -> None:
        super().__init__(memory, bit, term)
        self.heads: NDArray[np.int32] = np.zeros(0, np.int32)
        self.table = pair_table.new_table(_START)
        self.of_strings = False
        """Whether the terms are codes of texts."""
        self.windows: list[PairCounts] = []
        """What counts the pairs."""

    def reserve_keys(self, count: int) -> None:
        if count > len(self.heads):
            self.heads = grown(self.heads, max(count, 2 * len(self.heads)), -1)

    def reserve_pairs(self, added: int) -> None:
        """Makes room for so many more pairs, in all windows."""
        capacity = len(self.table.keys)
        if int(self.table.size[0]) + added > capacity:
            capacity = max(2 * capacity, int(self.table.size[0]) + added)
            slots = np.full(1 << (2 * capacity - 1).bit_length(), -1, np.int32)
            old = self.table
            self.table = Table(
                slots,
                grown(old.keys, capacity),
                grown(old.terms, capacity),
                grown(old.last, capacity),
                grown(old.after, capacity),
                grown(old.before, capacity),
                grown(old.uses, capacity),
                old.size,
            )
            pair_table.fill_slots(self.table)
        for window in self.windows:
            if len(window.counts) < capacity:
                window.counts = grown(window.counts, capacity)

    def enter(self, rows: NDArray[np.int32]) -> None:
        """Nothing: the windows' counts do it."""

    def forget(self, rows: NDArray[np.int32], had_bit: NDArray[np.bool_]) -> None:
        memory = self.memory
        pair_table.forget_last(
            self.table,
            memory.timelines.lists,
            memory.store.columns,
            rows[had_bit],
            *self.bit,
            self.values,
            np.int64(memory.now_us),
        )

    def forget_key(self, key: int) -> None:
        for window in self.windows:
            window.forget_key(key)
        pair_table.forget_pairs(self.table, self.heads, key)

    def referenced(self) -> NDArray[np.int32]:
        return np.where(self.table.uses > 0, self.table.last, NONE)

    def texts(self) -> NDArray[np.int64] | None:
        if not self.of_strings:
            return None
        taken = int(self.table.size[0])
        return self.table.terms[:taken][self.table.uses[:taken] > 0]

    def renumber(self, numbers: NDArray[np.int32]) -> None:
        used = self.table.uses > 0
        self.table.last[used] = numbers[self.table.last[used]]

    def dump(self) -> dict[str, NDArray[np.generic]]:
        taken = int(self.table.size[0])
        columns = {name: getattr(self.table, name)[:taken] for name in Table._fields[1:-1]}
        return columns | {"size": self.table.size, "heads": self.heads}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        taken = len(arrays["keys"])
        slots = np.full(max(_START * 2, 1 << (2 * taken).bit_length()), -1, np.int32)
        self.table = Table(slots, *(np.array(arrays[name]) for name in Table._fields[1:]))
        self.heads = np.array(arrays["heads"])
        pair_table.fill_slots(self.table)


class PairCounts(WindowedState):
    """How often each pair is in the window, and how many different terms each key has there."""

    def __init__(self, memory: Memory, bit: Bit, term: int | None, bounds: Bounds) -> None:
        super().__init__(memory, bit, term, bounds)
        self.pairs: Pairs
        """Told by `count_pairs`."""
        self.counts: NDArray[np.int32] = np.zeros(0, np.int32)
        self.distinct: NDArray[np.int32] = np.zeros(0, np.int32)

    def reserve_keys(self, count: int) -> None:
        self.pairs.reserve_keys(count)
        if count > len(self.distinct):
            self.distinct = grown(self.distinct, max(count, 2 * len(self.distinct)))

    def enter(self, rows: NDArray[np.int32]) -> None:
        self.pairs.reserve_pairs(len(rows))
        columns, heads = self.memory.store.columns, self.pairs.heads
        pair_table.enter(self.pairs.table, heads, self.counts, self.distinct, columns, rows, *self.bit, self.values)

    def leave(self, rows: NDArray[np.int32]) -> None:
        columns, heads = self.memory.store.columns, self.pairs.heads
        pair_table.leave(self.pairs.table, heads, self.counts, self.distinct, columns, rows, *self.bit, self.values)

    def forget_key(self, key: int) -> None:
        pair = int(self.pairs.heads[key])
        while pair >= 0:
            self.counts[pair] = 0
            pair = int(self.pairs.table.after[pair])
        self.distinct[key] = 0

    def seen(self, key: int) -> list[int]:
        """The pairs of a key in the window, in the order of their last sighting."""
        few = self._few_seen(key)
        if few is not None:
            return few
        seen = pair_table.seen(self.pairs.table, self.pairs.heads, self.counts, self.memory.store.columns, key)
        return cast("list[int]", seen.tolist())

    def many_seen(self, keys: NDArray[np.int32], limit: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The terms in the window of many keys, each key's in the order of their last sighting, and where they begin.

        Of each key at most `limit`, those seen last; 0 is all.
        """
        found = np.minimum(self.distinct[keys], limit) if limit else self.distinct[keys]
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(found, dtype=np.int32)])
        terms = np.empty(int(offsets[-1]), np.int64)
        room = np.empty(int(self.distinct[keys].max(initial=0)), np.int32)
        columns, pairs = self.memory.store.columns, self.pairs
        pair_table.many_seen(pairs.table, pairs.heads, self.counts, columns, keys, offsets, room, terms)
        return terms, offsets

    def _few_seen(self, key: int) -> list[int] | None:
        """The same for a key of few pairs, where the cost of a compiled call would be most of it; else None."""
        table, times = self.pairs.table, self.memory.store.columns.times
        found: list[tuple[int, int]] = []
        pair = self.pairs.heads.item(key)
        for _ in range(_FEW):
            if pair < 0:
                found.sort()
                if any(a[0] == b[0] for a, b in pairwise(found)):
                    return None
                return [pair for _, pair in found]
            if self.counts.item(pair):
                found.append((times.item(table.last.item(pair)), pair))
            pair = table.after.item(pair)
        return None

    def dump(self) -> dict[str, NDArray[np.generic]]:
        return {"counts": self.counts, "distinct": self.distinct}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self.counts, self.distinct = np.array(arrays["counts"]), np.array(arrays["distinct"])


def count_pairs(pairs: Pairs, window: PairCounts) -> None:
    """Lets a window count the pairs of its stream."""
    if window not in pairs.windows:
        window.pairs = pairs
        pairs.windows.append(window)
