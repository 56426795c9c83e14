"""Per-key lists of rows, in the total order of time: a growing vector for each key, all in one pool."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.jit import compiled
from services.kernel.rows import Rows, grown, precedes


class Lists(NamedTuple):
    """The arrays: the list of key k is pool[start[k] : start[k] + length[k]]."""

    pool: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int32]
    capacity: NDArray[np.int32]
    used: NDArray[np.int64]
    """One entry: how much of the pool is taken, outgrown places included."""


class Timelines:
    """For each key its rows in order of time."""

    def __init__(self) -> None:
        self.lists = _new_lists(64, 256)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(array.nbytes for array in self.lists)

    def reserve_keys(self, count: int) -> None:
        """Makes room for so many keys."""
        if count > len(self.lists.start):
            size = max(count, 2 * len(self.lists.start))
            lists = self.lists
            self.lists = lists._replace(
                start=grown(lists.start, size), length=grown(lists.length, size), capacity=grown(lists.capacity, size)
            )

    def grow_pool(self) -> None:
        """Makes the pool larger, leaving outgrown places behind when they are many."""
        lists = self.lists
        size = max(256, 3 * int(lists.capacity.sum()))
        if size > len(lists.pool) * 2 // 3:
            self.lists = _compacted(lists, max(size, 2 * len(lists.pool)))
        else:
            self.lists = _compacted(lists, len(lists.pool))

    def insert(self, columns: Rows, rows: NDArray[np.int32]) -> None:
        """Puts rows into their keys' lists."""
        done = _insert(self.lists, columns, rows, 0)
        while done < len(rows):
            self.grow_pool()
            done = _insert(self.lists, columns, rows, done)

    def remove(self, columns: Rows, rows: NDArray[np.int32]) -> None:
        """Takes rows out of their keys' lists."""
        _remove(self.lists, columns, rows)

    def rows_of(self, key: int) -> NDArray[np.int32]:
        """The rows of a key, in order of time."""
        start = int(self.lists.start[key])
        return self.lists.pool[start : start + int(self.lists.length[key])]

    def rebuild(self, columns: Rows, rows: NDArray[np.int32], keys: int) -> None:
        """Starts over with these rows, for so many keys."""
        self.lists = _new_lists(max(64, keys), max(256, 3 * len(rows)))
        order = np.argsort(columns.times[rows], kind="stable")
        self.insert(columns, rows[order])


def _new_lists(keys: int, pool: int) -> Lists:
    return Lists(
        np.zeros(pool, np.int32),
        np.zeros(keys, np.int64),
        np.zeros(keys, np.int32),
        np.zeros(keys, np.int32),
        np.zeros(1, np.int64),
    )


@compiled
def _compact_into(lists: Lists, pool: NDArray[np.int32], start: NDArray[np.int64]) -> int:
    used = 0
    for key in range(len(lists.start)):
        start[key] = used
        for i in range(lists.length[key]):
            pool[used + i] = lists.pool[lists.start[key] + i]
        used += lists.capacity[key]
    return used


def _compacted(lists: Lists, size: int) -> Lists:
    pool, start = np.zeros(size, np.int32), np.zeros(len(lists.start), np.int64)
    used = _compact_into(lists, pool, start)
    return lists._replace(pool=pool, start=start, used=np.array([used], np.int64))


@compiled
def make_room(lists: Lists, key: int) -> bool:
    """Makes room for one more row in a key's list, moving it to the pool's end when it is full; False: pool is full."""
    capacity = lists.capacity[key]
    if lists.length[key] < capacity:
        return True
    larger = max(2, 2 * capacity)
    used = lists.used[0]
    if used + larger > len(lists.pool):
        return False
    for i in range(lists.length[key]):
        lists.pool[used + i] = lists.pool[lists.start[key] + i]
    lists.start[key] = used
    lists.capacity[key] = larger
    lists.used[0] = used + larger
    return True


@compiled
def place_of(lists: Lists, rows: Rows, key: int, row: int) -> int:
    """The index in a key's list of the first row that does not come before `row`."""
    start = lists.start[key]
    low, high = 0, lists.length[key]
    if high > 0 and precedes(rows, lists.pool[start + high - 1], row):
        return int(high)
    while low < high:
        middle = (low + high) // 2
        if precedes(rows, lists.pool[start + middle], row):
            low = middle + 1
        else:
            high = middle
    return int(low)


@compiled
def lower_bound(lists: Lists, rows: Rows, key: int, time: np.int64) -> int:
    """The index in a key's list of the first row that is not earlier than `time`."""
    start = lists.start[key]
    low, high = 0, lists.length[key]
    while low < high:
        middle = (low + high) // 2
        if rows.times[lists.pool[start + middle]] < time:
            low = middle + 1
        else:
            high = middle
    return int(low)


@compiled
def insert_at(lists: Lists, key: int, index: int, row: int) -> None:
    """Puts a row at an index of a key's list, which has room."""
    start = lists.start[key]
    for i in range(start + lists.length[key], start + index, -1):
        lists.pool[i] = lists.pool[i - 1]
    lists.pool[start + index] = row
    lists.length[key] += 1


@compiled
def remove_range(lists: Lists, key: int, first: int, last: int) -> None:
    """Takes the entries [first, last) out of a key's list."""
    start, length = lists.start[key], lists.length[key]
    for i in range(last, length):
        lists.pool[start + first + i - last] = lists.pool[start + i]
    lists.length[key] = length - (last - first)


@compiled
def _insert(lists: Lists, columns: Rows, rows: NDArray[np.int32], done: int) -> int:
    for i in range(done, len(rows)):
        key = columns.keys[rows[i]]
        if not make_room(lists, key):
            return i
        insert_at(lists, key, place_of(lists, columns, key, rows[i]), rows[i])
    return len(rows)


@compiled
def _remove(lists: Lists, columns: Rows, rows: NDArray[np.int32]) -> None:
    for i in range(len(rows)):
        key = columns.keys[rows[i]]
        index = place_of(lists, columns, key, rows[i])
        # Equal neighbours in the order can only be versions of one event.
        while lists.pool[lists.start[key] + index] != rows[i]:
            index += 1
        remove_range(lists, key, index, index + 1)
