"""What each query says of each customer, since when; and what changed.

A state is a byte for each pair of a customer and a query. Since when it holds is kept only for pairs that changed.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.cells import (
    COUNT_WIDTH,
    KEY,
    NUMBER,
    Cells,
    find_cell,
    new_cells,
    put_numbers,
    with_room,
    without,
)
from services.kernel.rows import grown

UNKNOWN, NOT, APPLIES, ERROR = 0, 1, 2, 3
STATE = np.uint8(0x7F)
"""The bits of a state without that which says that the pair is queued."""


class Standing(IntEnum):
    """What a query says of a customer."""

    UNKNOWN = UNKNOWN
    """Not evaluated: no such customer, or the query is not active."""
    NOT = NOT
    APPLIES = APPLIES
    ERROR = ERROR


class Changes(NamedTuple):
    """States that became others, in order: aligned arrays of queries, customers, states, and since when."""

    queries: NDArray[np.int32]
    customers: NDArray[np.int32]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    since_us: NDArray[np.int64]

    def __bool__(self) -> bool:
        return len(self.queries) > 0

    def chosen(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Changes":
        """Some of them."""
        return Changes(*(column[rows] for column in self))  # type: ignore[arg-type]

    def net(self) -> "Changes":
        """One for each pair: from what it was first to what it is last. Those that came back are left out."""
        pairs = (self.queries.astype(np.int64) << 32) | self.customers
        _, firsts = np.unique(pairs, return_index=True)
        _, lasts = np.unique(pairs[::-1], return_index=True)
        found = self.chosen(len(pairs) - 1 - lasts)._replace(before=self.before[firsts])
        found = found.chosen((found.before != found.after) & ~((found.before == UNKNOWN) & (found.after == NOT)))
        return found.chosen(np.argsort(found.since_us, kind="stable"))


def joined(changes: Sequence[Changes]) -> Changes:
    """Changes one after the other."""
    return Changes(*(np.concatenate(column) for column in zip(*changes, strict=True))) if changes else NO_CHANGES


NO_CHANGES = Changes(
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.uint8),
    np.zeros(0, np.uint8),
    np.zeros(0, np.int64),
)


class States:
    """States by customer and query, both codes from 0."""

    def __init__(self) -> None:
        self.table: NDArray[np.uint8] = np.zeros((64, 8), np.uint8)
        self._since: Cells = new_cells(COUNT_WIDTH)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.table.nbytes + sum(array.nbytes for array in self._since)

    def reserve(self, customers: int, queries: int) -> None:
        """Makes room for so many."""
        rows, columns = self.table.shape
        if queries > columns:
            wider = np.zeros((rows, max(queries, 2 * columns)), np.uint8)
            wider[:, :columns] = self.table
            self.table = wider
        if customers > rows:
            self.table = grown(self.table, max(customers, 2 * rows))

    def of(self, customer: int, query: int) -> Standing:
        """The state of a pair."""
        if customer >= len(self.table):
            return Standing.UNKNOWN
        return Standing(int(self.table[customer, query] & STATE))

    def since_us(self, customer: int, query: int) -> int | None:
        """Since when a pair has its state; None: it never had another."""
        cell = int(find_cell(self._since, query, customer))
        return None if cell < 0 else int(self._since.rows[cell, NUMBER])

    def note(self, queries: NDArray[np.int32], customers: NDArray[np.int32], since_us: NDArray[np.int64]) -> None:
        """Remembers since when."""
        self._since = with_room(self._since, len(queries))
        put_numbers(self._since, queries, customers, since_us)

    def customers(self, query: int, state: Standing, count: int) -> NDArray[np.int32]:
        """The customers, among so many, of whom a query says something."""
        return np.flatnonzero((self.table[:count, query] & STATE) == state).astype(np.int32)

    def clear(self, query: int) -> None:
        """A query is gone: nothing is known of it."""
        self.table[:, query] = 0
        self._since = without(self._since, {query})

    def dump(self, customers: int) -> dict[str, NDArray[np.generic]]:
        """The states as arrays."""
        used = int(self._since.used[0])
        return {
            "table": self.table[:customers] & STATE,
            "since_keys": self._since.rows[:used, KEY],
            "since_us": self._since.rows[:used, NUMBER],
        }

    def load(self, arrays: dict[str, NDArray[np.generic]], slots: dict[int, int], customers: int, queries: int) -> None:
        """Takes the states back; `slots` says which query each one of the dump is now."""
        self.table = np.zeros((max(64, customers), max(8, queries)), np.uint8)
        self._since = new_cells(COUNT_WIDTH)
        dumped = np.asarray(arrays["table"], np.uint8)
        for old, new in slots.items():
            if old < dumped.shape[1]:
                self.table[: len(dumped), new] = dumped[:, old]
        keys = np.asarray(arrays["since_keys"], np.int64)
        moved = np.full(max([*slots, *np.unique(keys >> 32).tolist(), 0]) + 1, -1, np.int32)
        moved[list(slots)] = list(slots.values())
        found = moved[keys >> 32]
        kept = np.flatnonzero(found >= 0)
        self.note(
            found[kept], (keys[kept] & 0xFFFFFFFF).astype(np.int32), np.asarray(arrays["since_us"], np.int64)[kept]
        )
