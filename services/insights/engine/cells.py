"""Counts and exact sums by (total, customer): a table that only holds what some row has touched.

A sum is kept as the kernel keeps it, in digits of 32 bits of the number scaled by 2^1074, so that rows are added and
taken away without a trace; but in a fixed stretch of digits, 2^-114 to 2^67 at least. A number beyond that is counted
in `wide` instead: while a cell has any, its customer's verdict is computed from the rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.summing import add_double, split_double
from services.kernel.jit import compiled, inlined
from services.kernel.rows import grown

LOWEST, DIGITS = 30, 7
"""The first digit kept, and how many."""
COUNT, SUM = 0, 1
_FREE = np.int32(-1)
_DE_BRUIJN = 0x03F79D71B4CB0A89


class Cells(NamedTuple):
    """The arrays. What belongs to a cell lies side by side: memory is reached for once, not for each number."""

    slots: NDArray[np.int32]
    """Open addressing: the number of a cell, or -1. A power of two, at most half full."""
    used: NDArray[np.int64]
    """One entry: how many cells there are."""
    rows: NDArray[np.int64]
    """By cell: its key (total << 32 | customer), its count, how many numbers are not in its digits; and of sums the sum
    as it was last read, the bits of a double (NaN since it changed), and the digits."""


KEY, NUMBER, WIDE, ROUNDED, FIRST_DIGIT = 0, 1, 2, 3, 4
"""Columns of a cell."""
COUNT_WIDTH, SUM_WIDTH = 3, FIRST_DIGIT + DIGITS
_NAN_BITS = 0x7FF8000000000000


class Parts(NamedTuple):
    """What a pass adds to totals, by part: arrays of one entry each, and where its conditions begin in `conditions`."""

    total: NDArray[np.int32]
    sums: NDArray[np.int8]
    range: NDArray[np.int32]
    term: NDArray[np.int32]
    """The row of `terms`, or -1."""
    starts: NDArray[np.int32]
    """One more than there are parts."""
    conditions: NDArray[np.int32]
    query_starts: NDArray[np.int32]
    """Where the queries of a part begin in `queries`; one more than there are parts."""
    queries: NDArray[np.int32]


class Queue(NamedTuple):
    """Pairs of a customer and a query that are to be decided again."""

    customers: NDArray[np.int32]
    queries: NDArray[np.int32]
    used: NDArray[np.int64]


def new_cells(width: int, capacity: int = 64) -> Cells:
    """An empty table."""
    slots = np.full(1 << (2 * capacity - 1).bit_length(), _FREE, np.int32)
    return Cells(slots, np.zeros(1, np.int64), np.zeros((capacity, width), np.int64))


def with_room(cells: Cells, added: int) -> Cells:
    """The table with room for so many more cells: larger, or without those that are empty."""
    used = int(cells.used[0])
    if used + added <= len(cells.rows):
        return cells
    kept = (cells.rows[:used, NUMBER] != 0) | (cells.rows[:used, WIDE] != 0)
    return _only(cells, kept, added)


def without(cells: Cells, totals: set[int]) -> Cells:
    """The table without the cells of some totals."""
    used = int(cells.used[0])
    return _only(cells, ~np.isin(cells.rows[:used, KEY] >> 32, list(totals)), 0)


def _only(cells: Cells, kept: NDArray[np.bool_], added: int) -> Cells:
    numbers = np.flatnonzero(kept)
    table = new_cells(cells.rows.shape[1], max(64, 2 * (len(numbers) + added)))
    table.used[0] = len(numbers)
    table.rows[: len(numbers)] = cells.rows[numbers]
    _fill_slots(table)
    return table


def nbytes(cells: Cells) -> int:
    """Memory held, in bytes."""
    return sum(array.nbytes for array in cells)


@compiled
def _fill_slots(cells: Cells) -> None:
    mask = len(cells.slots) - 1
    for cell in range(cells.used[0]):
        slot = _hash(cells.rows[cell, KEY]) & mask
        while cells.slots[slot] >= 0:
            slot = (slot + 1) & mask
        cells.slots[slot] = cell


@inlined
def _hash(key: int) -> int:
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return int((mixed ^ (mixed >> np.uint64(29))) & np.uint64(0x7FFFFFFF))


@inlined
def find_cell(cells: Cells, total: int, customer: int) -> int:
    """The number of a cell, or -1."""
    key = (int(total) << 32) | int(customer)
    mask = len(cells.slots) - 1
    slot = _hash(key) & mask
    while True:
        cell = int(cells.slots[slot])
        if cell < 0 or cells.rows[cell, KEY] == key:
            return cell
        slot = (slot + 1) & mask


@inlined
def cell_of(cells: Cells, total: int, customer: int) -> int:
    """The number of a cell, made now if there is none: there is room."""
    key = (int(total) << 32) | int(customer)
    mask = len(cells.slots) - 1
    slot = _hash(key) & mask
    while True:
        cell = int(cells.slots[slot])
        if cell < 0:
            cell = int(cells.used[0])
            cells.slots[slot] = cell
            # The rest is zero: cells are only ever added to new rows.
            cells.rows[cell, KEY] = key
            cells.used[0] = cell + 1
            return cell
        if cells.rows[cell, KEY] == key:
            return cell
        slot = (slot + 1) & mask


@compiled
def put_numbers(cells: Cells, first: NDArray[np.int32], second: NDArray[np.int32], numbers: NDArray[np.int64]) -> None:
    """Sets the counts of cells, made now where there are none: there is room."""
    for i in range(len(first)):
        cell = cell_of(cells, first[i], second[i])
        cells.rows[cell, NUMBER] = numbers[i]
        # A cell with nothing would be dropped; zero is a number too.
        cells.rows[cell, WIDE] = 1


@inlined
def add_number(cells: Cells, cell: int, value: float, bits: int, sign: int) -> None:
    """Adds a number to a sum, or takes it away."""
    cells.rows[cell, NUMBER] += sign
    cells.rows[cell, ROUNDED] = _NAN_BITS
    mantissa, digit, _ = split_double(bits)
    if mantissa == 0:
        return
    if digit < LOWEST or digit + 3 > LOWEST + DIGITS:
        cells.rows[cell, WIDE] += sign
    else:
        add_double(cells.rows, cell, LOWEST - FIRST_DIGIT, bits, sign)


QUEUED = 0x80
"""The bit of a state that says that its pair is in the queue."""


@inlined
def enqueue(queue: Queue, states: NDArray[np.uint8], customer: int, query: int) -> None:
    if not states[customer, query] & QUEUED:
        states[customer, query] |= QUEUED
        at = queue.used[0]
        queue.customers[at] = customer
        queue.queries[at] = query
        queue.used[0] = at + 1


@compiled
def accumulate(
    counts: Cells,
    sums: Cells,
    parts: Parts,
    first: int,
    conditions: NDArray[np.uint64],
    inside: NDArray[np.uint64],
    terms: NDArray[np.float64],
    term_bits: NDArray[np.int64],
    customers: NDArray[np.int32],
    signs: NDArray[np.int8],
    states: NDArray[np.uint8],
    queue: Queue,
    places: NDArray[np.int64],
) -> int:
    """Adds the rows of a pass to every part's total from part `first` on, and queues whom it concerns.

    `conditions` and `inside` have a bit for each row, 64 to a word. `places` is the table of `bit_places`. Returns the
    part at which a table or the queue had no room, or the number of parts.
    """
    rows, words = len(customers), conditions.shape[1]
    for part in range(first, len(parts.total)):
        concerned = parts.query_starts[part + 1] - parts.query_starts[part]
        table = sums if parts.sums[part] == SUM else counts
        if table.used[0] + rows > len(table.rows) or queue.used[0] + rows * concerned > len(queue.customers):
            return part
        total, term = parts.total[part], parts.term[part]
        for word in range(words):
            bits = inside[parts.range[part], word]
            for c in range(parts.starts[part], parts.starts[part + 1]):
                bits &= conditions[parts.conditions[c], word]
            while bits:
                low = bits & (~bits + np.uint64(1))
                row = word * 64 + places[np.int64((low * np.uint64(_DE_BRUIJN)) >> np.uint64(58))]
                bits ^= low
                if term >= 0 and np.isnan(terms[term, row]):
                    continue
                customer = customers[row]
                cell = cell_of(table, total, customer)
                if parts.sums[part] == SUM:
                    add_number(table, cell, terms[term, row], term_bits[term, row], signs[row])
                else:
                    table.rows[cell, NUMBER] += signs[row]
                for q in range(parts.query_starts[part], parts.query_starts[part + 1]):
                    enqueue(queue, states, customer, parts.queries[q])
    return len(parts.total)


def bit_places() -> NDArray[np.int64]:
    """From the top six bits of a power of two times de Bruijn's constant to its exponent."""
    table = np.zeros(64, np.int64)
    for exponent in range(64):
        table[((_DE_BRUIJN << exponent) % 2**64) >> 58] = exponent
    return table


def new_queue(capacity: int = 1024) -> Queue:
    """An empty queue."""
    return Queue(np.zeros(capacity, np.int32), np.zeros(capacity, np.int32), np.zeros(1, np.int64))


def longer(queue: Queue, added: int) -> Queue:
    """The queue with room for so many more pairs."""
    needed = int(queue.used[0]) + added
    if needed <= len(queue.customers):
        return queue
    size = max(needed, 2 * len(queue.customers))
    return queue._replace(customers=grown(queue.customers, size), queries=grown(queue.queries, size))
