"""Pairs: a key with one of its terms, how often it was seen and when last.

Each stream keeps its pairs in one hash table, each key's pairs in a list; each window counts the rows of each pair
inside it. A pair that no window counts any more is given up.
"""

from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import (
    Bounds,
    Memory,
    StreamState,
    WindowedState,
)
from services.kernel.hashing import mix64
from services.kernel.jit import compiled, njit
from services.kernel.rows import Bit, Rows, grown, precedes
from services.kernel.timelines import Lists, place_of

NONE = np.int32(-1)
_START = 64
_FEW = 16


class Table(NamedTuple):
    """The pairs as arrays."""

    slots: NDArray[np.int32]
    """Open addressing: a pair, or -1. A power of two, at most half full."""
    keys: NDArray[np.int32]
    terms: NDArray[np.int64]
    last: NDArray[np.int32]
    """The last row of the pair that came inside."""
    after: NDArray[np.int32]
    """The next pair of the key; of a free one, the next free one."""
    before: NDArray[np.int32]
    uses: NDArray[np.int32]
    """How many windows count the pair."""
    size: NDArray[np.int32]
    """Two entries: pairs ever taken, and the first free one or -1."""


class Pairs(StreamState):
    """The pairs of one stream. Its windows' counts fill it."""

    def __init__(self, memory: Memory, bit: Bit, term: int | None) -> None:
        super().__init__(memory, bit, term)
        self.heads: NDArray[np.int32] = np.zeros(0, np.int32)
        self.table = _new_table(_START)
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
            _fill_slots(self.table)
        for window in self.windows:
            if len(window.counts) < capacity:
                window.counts = grown(window.counts, capacity)

    def enter(self, rows: NDArray[np.int32]) -> None:
        """Nothing: the windows' counts do it."""

    def forget(self, rows: NDArray[np.int32], had_bit: NDArray[np.bool_]) -> None:
        memory = self.memory
        _forget(
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
        _forget_pairs(self.table, self.heads, key)

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
        _fill_slots(self.table)


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
        _enter(self.pairs.table, heads, self.counts, self.distinct, columns, rows, *self.bit, self.values)

    def leave(self, rows: NDArray[np.int32]) -> None:
        columns, heads = self.memory.store.columns, self.pairs.heads
        _leave(self.pairs.table, heads, self.counts, self.distinct, columns, rows, *self.bit, self.values)

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
        seen = _seen(self.pairs.table, self.pairs.heads, self.counts, self.memory.store.columns, key)
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
        _many_seen(pairs.table, pairs.heads, self.counts, columns, keys, offsets, room, terms)
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


def _new_table(capacity: int) -> Table:
    return Table(
        np.full(2 * capacity, -1, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.array([0, -1], np.int32),
    )


@compiled
def _home(table: Table, key: int, term: int) -> int:
    """The slot where the search for a pair begins."""
    mixed = mix64(mix64(np.uint64(term)) ^ (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)))
    return np.int64(mixed & np.uint64(len(table.slots) - 1))  # type: ignore[return-value]


@compiled
def _slot(table: Table, key: int, term: int) -> int:
    """The slot of a pair, or the free one where it belongs."""
    slot = _home(table, key, term)
    while True:
        pair = table.slots[slot]
        if pair < 0 or (table.keys[pair] == key and table.terms[pair] == term):
            return slot
        slot = (slot + 1) & (len(table.slots) - 1)


@compiled
def _fill_slots(table: Table) -> None:
    for pair in range(table.size[0]):
        if table.uses[pair] > 0:
            table.slots[_slot(table, table.keys[pair], table.terms[pair])] = pair


@compiled
def _take(table: Table, heads: NDArray[np.int32], key: int, term: int, row: int) -> int:
    """A new pair, at the head of its key's list."""
    if table.size[1] >= 0:
        pair = table.size[1]
        table.size[1] = table.after[pair]
    else:
        pair = table.size[0]
        table.size[0] += 1
    table.keys[pair] = key
    table.terms[pair] = term
    table.last[pair] = row
    table.after[pair] = heads[key]
    table.before[pair] = NONE
    if heads[key] >= 0:
        table.before[heads[key]] = pair
    heads[key] = pair
    return int(pair)


@compiled
def _give_up(table: Table, heads: NDArray[np.int32], slot: int) -> None:
    """Takes the pair in a slot out of its key's list and out of the table, closing the gap in the run of slots."""
    pair = table.slots[slot]
    if table.before[pair] >= 0:
        table.after[table.before[pair]] = table.after[pair]
    else:
        heads[table.keys[pair]] = table.after[pair]
    if table.after[pair] >= 0:
        table.before[table.after[pair]] = table.before[pair]
    table.after[pair] = table.size[1]
    table.size[1] = pair
    mask = len(table.slots) - 1
    gap = slot
    probe = (slot + 1) & mask
    while table.slots[probe] >= 0:
        other = table.slots[probe]
        home = _home(table, table.keys[other], table.terms[other])
        # The pair may move back to the gap unless its home lies after the gap.
        if ((probe - home) & mask) >= ((probe - gap) & mask):
            table.slots[gap] = other
            gap = probe
        probe = (probe + 1) & mask
    table.slots[gap] = NONE


@compiled
def _enter(
    table: Table,
    heads: NDArray[np.int32],
    counts: NDArray[np.int32],
    distinct: NDArray[np.int32],
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    terms: NDArray[np.int64],
) -> None:
    for i in range(len(rows)):
        row = rows[i]
        if not columns.flags[row, word] & mask:
            continue
        key = columns.keys[row]
        slot = _slot(table, key, terms[row])
        pair = table.slots[slot]
        if pair < 0:
            pair = _take(table, heads, key, terms[row], row)
            table.slots[slot] = pair
        elif precedes(columns, table.last[pair], row):
            table.last[pair] = row
        if counts[pair] == 0:
            distinct[key] += 1
            table.uses[pair] += 1
        counts[pair] += 1


@compiled
def _leave(
    table: Table,
    heads: NDArray[np.int32],
    counts: NDArray[np.int32],
    distinct: NDArray[np.int32],
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    terms: NDArray[np.int64],
) -> None:
    for i in range(len(rows)):
        row = rows[i]
        if not columns.flags[row, word] & mask:
            continue
        key = columns.keys[row]
        slot = _slot(table, key, terms[row])
        pair = table.slots[slot]
        counts[pair] -= 1
        if counts[pair] == 0:
            distinct[key] -= 1
            table.uses[pair] -= 1
            if table.uses[pair] == 0:
                _give_up(table, heads, slot)


@compiled
def _forget(
    table: Table,
    lists: Lists,
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    terms: NDArray[np.int64],
    now: np.int64,
) -> None:
    """Finds the sighting before for pairs whose last row was retracted."""
    for i in range(len(rows)):
        key, term = columns.keys[rows[i]], terms[rows[i]]
        pair = table.slots[_slot(table, key, term)]
        if pair < 0 or table.last[pair] != rows[i]:
            continue
        for j in range(place_of(lists, columns, key, rows[i]) - 1, -1, -1):
            row = lists.pool[lists.start[key] + j]
            if columns.times[row] < now and columns.flags[row, word] & mask and terms[row] == term:
                table.last[pair] = row
                break


@compiled
def _forget_pairs(table: Table, heads: NDArray[np.int32], key: int) -> None:
    """Gives up all pairs of a key."""
    while heads[key] >= 0:
        pair = heads[key]
        table.uses[pair] = 0
        _give_up(table, heads, _slot(table, key, table.terms[pair]))


@njit
def _seen(
    table: Table, heads: NDArray[np.int32], counts: NDArray[np.int32], columns: Rows, key: int
) -> NDArray[np.int32]:
    count = 0
    pair = heads[key]
    while pair >= 0:
        if counts[pair] > 0:
            count += 1
        pair = table.after[pair]
    pairs = np.empty(count, np.int32)
    times = np.empty(count, np.int64)
    count = 0
    pair = heads[key]
    while pair >= 0:
        if counts[pair] > 0:
            pairs[count] = pair
            times[count] = columns.times[table.last[pair]]
            count += 1
        pair = table.after[pair]
    pairs = pairs[np.argsort(times, kind="mergesort")]
    # Equal times are settled by the event ids: neighbours now, so a pass of insertion is cheap.
    for i in range(1, count):
        moving = pairs[i]
        j = i
        while j > 0 and precedes(columns, table.last[moving], table.last[pairs[j - 1]]):
            pairs[j] = pairs[j - 1]
            j -= 1
        pairs[j] = moving
    return pairs


@compiled
def _many_seen(
    table: Table,
    heads: NDArray[np.int32],
    counts: NDArray[np.int32],
    columns: Rows,
    keys: NDArray[np.int32],
    offsets: NDArray[np.int32],
    room: NDArray[np.int32],
    terms: NDArray[np.int64],
) -> None:
    for k in range(len(keys)):
        count = 0
        pair = heads[keys[k]]
        while pair >= 0:
            if counts[pair] > 0:
                # Lists are short, and come nearly in order: the newest pair is the head.
                place = count
                while place > 0 and precedes(columns, table.last[room[place - 1]], table.last[pair]):
                    room[place] = room[place - 1]
                    place -= 1
                room[place] = pair
                count += 1
            pair = table.after[pair]
        # The room holds the newest first.
        length = offsets[k + 1] - offsets[k]
        for i in range(length):
            terms[offsets[k] + i] = table.terms[room[length - 1 - i]]
