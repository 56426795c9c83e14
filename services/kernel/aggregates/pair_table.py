"""The table of pairs: a hash table over arrays, with a list of each key's pairs through it, and its compiled loops."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.hashing import mix64
from services.kernel.jit import compiled, njit
from services.kernel.rows import Rows, precedes
from services.kernel.timelines import Lists, place_of

NONE = np.int32(-1)


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


def new_table(capacity: int) -> Table:
    """A table without pairs, with room for so many."""
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
def fill_slots(table: Table) -> None:
    """Puts the pairs that are in use into the slots, which are empty."""
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
def enter(
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
    """Rows come into a window: of each that has the bit the pair is found or made, and counted."""
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
def leave(
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
    """Rows go out of a window; a pair that no window counts any more is given up."""
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
def forget_last(
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
def forget_pairs(table: Table, heads: NDArray[np.int32], key: int) -> None:
    """Gives up all pairs of a key."""
    while heads[key] >= 0:
        pair = heads[key]
        table.uses[pair] = 0
        _give_up(table, heads, _slot(table, key, table.terms[pair]))


@njit
def seen(
    table: Table, heads: NDArray[np.int32], counts: NDArray[np.int32], columns: Rows, key: int
) -> NDArray[np.int32]:
    """The pairs of a key in a window, in the order of their last sighting."""
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
def many_seen(
    table: Table,
    heads: NDArray[np.int32],
    counts: NDArray[np.int32],
    columns: Rows,
    keys: NDArray[np.int32],
    offsets: NDArray[np.int32],
    room: NDArray[np.int32],
    terms: NDArray[np.int64],
) -> None:
    """Writes to `terms` those of many keys in a window, the newest of each key in the order of their last sighting."""
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
