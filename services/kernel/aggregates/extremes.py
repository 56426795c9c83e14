"""min and max: a staircase for each key.

Every window ends now, so a row can be the greatest of a window only if nothing greater comes after it. The rows of
which that is true form, in order of time, a falling staircase: the greatest of a window is the first step inside it,
for any window. A new row takes away the steps that it overtops, so each row is added and taken away at most once.
"""

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import (
    Gathered,
    ManyReader,
    Memory,
    Reader,
    States,
    StreamState,
    Value,
    term_decoder,
)
from services.kernel.aggregations import Aggregation, TermType
from services.kernel.jit import compiled, njit
from services.kernel.rows import Bit, Rows
from services.kernel.timelines import Lists, Timelines, insert_at, lower_bound, make_room, place_of, remove_range


class _Staircase(StreamState):
    """The steps of each key, in order of time."""

    greatest: bool

    def __init__(self, memory: Memory, bit: Bit, term: int | None) -> None:
        super().__init__(memory, bit, term)
        self.steps = Timelines()
        self.numbers = False
        """Whether the terms are doubles."""

    def _terms(self) -> NDArray[np.int64] | NDArray[np.float64]:
        return self.values.view(np.float64) if self.numbers else self.values

    def reserve_keys(self, count: int) -> None:
        self.steps.reserve_keys(count)

    def enter(self, rows: NDArray[np.int32]) -> None:
        columns, terms = self.memory.store.columns, self._terms()
        done = _climb(self.steps.lists, columns, rows, *self.bit, terms, self.greatest, 0)
        while done < len(rows):
            self.steps.grow_pool()
            done = _climb(self.steps.lists, columns, rows, *self.bit, terms, self.greatest, done)

    def forget(self, rows: NDArray[np.int32], had_bit: NDArray[np.bool_]) -> None:
        """Rebuilds the staircases that had one of the rows as a step, from the timelines."""
        columns, timelines = self.memory.store.columns, self.memory.timelines
        keys = _clear_steps(self.steps.lists, columns, rows[had_bit])
        for key in np.unique(keys[keys >= 0]):
            of_key = timelines.rows_of(int(key))
            self.enter(of_key[columns.times[of_key] < self.memory.now_us])

    def first_inside(self, key: int, lower_us: int) -> int:
        """The row of the first step that is not before `lower_us`, or -1."""
        return _step(self.steps.lists, self.memory.store.columns, key, np.int64(lower_us))

    def forget_key(self, key: int) -> None:
        self.steps.lists.length[key] = 0

    def referenced(self) -> NDArray[np.int32]:
        return _steps(self.steps.lists)

    def renumber(self, numbers: NDArray[np.int32]) -> None:
        lists = self.steps.lists
        # Places that hold no row may hold old numbers: they are never read.
        lists.pool[:] = np.where(lists.pool < len(numbers), numbers[np.minimum(lists.pool, len(numbers) - 1)], 0)

    def dump(self) -> dict[str, NDArray[np.generic]]:
        return dict(self.steps.lists._asdict())

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self.steps.lists = Lists(*(np.array(arrays[name]) for name in Lists._fields))


class Least(_Staircase):
    """Staircases of the least terms."""

    greatest = False


class Greatest(_Staircase):
    """Staircases of the greatest terms."""

    greatest = True


@compiled
def _climb(
    lists: Lists,
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    terms: NDArray[np.generic],
    greatest: bool,
    done: int,
) -> int:
    """Adds rows from the `done`-th on; returns how many are done, fewer than all when the pool is full."""
    for i in range(done, len(rows)):
        row = rows[i]
        if not columns.flags[row, word] & mask:
            continue
        key = columns.keys[row]
        if not make_room(lists, key):
            return i
        start = lists.start[key]
        place = place_of(lists, columns, key, row)
        term = terms[row]
        if place < lists.length[key]:
            after = terms[lists.pool[start + place]]
            if (after >= term) if greatest else (after <= term):
                continue
        first = place
        while first > 0:
            before = terms[lists.pool[start + first - 1]]
            if (before > term) if greatest else (before < term):
                break
            first -= 1
        remove_range(lists, key, first, place)
        insert_at(lists, key, first, row)
    return len(rows)


@njit
def _clear_steps(lists: Lists, columns: Rows, rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Empties the staircases that contain one of the rows; returns their keys, -1 where nothing was done."""
    keys = np.full(len(rows), -1, np.int32)
    for i in range(len(rows)):
        key = columns.keys[rows[i]]
        for j in range(lists.length[key]):
            if lists.pool[lists.start[key] + j] == rows[i]:
                keys[i] = key
        if keys[i] >= 0:
            lists.length[key] = 0
    return keys


@njit
def _steps(lists: Lists) -> NDArray[np.int32]:
    """The rows of all steps of all keys."""
    rows = np.empty(lists.length.sum(), np.int32)
    count = 0
    for key in range(len(lists.length)):
        for i in range(lists.length[key]):
            rows[count] = lists.pool[lists.start[key] + i]
            count += 1
    return rows


@compiled
def _step(lists: Lists, columns: Rows, key: int, lower: np.int64) -> int:
    index = lower_bound(lists, columns, key, lower)
    if index == lists.length[key]:
        return -1
    return int(lists.pool[lists.start[key] + index])


@compiled
def _steps_inside(
    lists: Lists, columns: Rows, keys: NDArray[np.int32], lowers: NDArray[np.int64], rows: NDArray[np.int32]
) -> None:
    for i in range(len(keys)):
        rows[i] = _step(lists, columns, keys[i], lowers[i])


def _reader(kind: type[Least] | type[Greatest], aggregation: Aggregation, states: States) -> Reader:
    state: _Staircase = states.of_stream(kind, aggregation)
    state.numbers = aggregation.term_type is TermType.NUMBER
    bounds, decode = states.bounds(aggregation), term_decoder(states.memory, aggregation.term_type)

    def read(key: int) -> Value | None:
        row = state.first_inside(key, bounds.lower(key))
        return None if row < 0 else decode(state.values.item(row))

    return read


def minimum(aggregation: Aggregation, states: States) -> Reader:
    """The least term."""
    return _reader(Least, aggregation, states)


def maximum(aggregation: Aggregation, states: States) -> Reader:
    """The greatest term."""
    return _reader(Greatest, aggregation, states)


def _many_reader(kind: type[Least] | type[Greatest], aggregation: Aggregation, states: States) -> ManyReader:
    state: _Staircase = states.of_stream(kind, aggregation)
    bounds = states.bounds(aggregation)

    def read(keys: NDArray[np.int32]) -> Gathered:
        rows = np.empty(len(keys), np.int32)
        _steps_inside(state.steps.lists, states.memory.store.columns, keys, bounds.lowers(keys), rows)
        return Gathered(state.values[rows], rows >= 0, are_terms=True)

    return read


def many_minima(aggregation: Aggregation, states: States) -> ManyReader:
    """Min for many keys."""
    return _many_reader(Least, aggregation, states)


def many_maxima(aggregation: Aggregation, states: States) -> ManyReader:
    """Max for many keys."""
    return _many_reader(Greatest, aggregation, states)
