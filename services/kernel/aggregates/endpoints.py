"""first, last, latest, time_since_first and time_since_last: the ends of the window."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import (
    Gathered,
    ManyReader,
    Reader,
    State,
    States,
    StreamState,
    Value,
    WindowedState,
    term_decoder,
)
from services.kernel.aggregations import Aggregation, Function
from services.kernel.jit import compiled
from services.kernel.rows import Rows, grown, precedes
from services.kernel.timelines import Lists, lower_bound, place_of

NONE = np.int32(-1)


class RowByKey(State):
    """One row for each key, or -1."""

    rows: NDArray[np.int32] = np.zeros(0, np.int32)

    def reserve_keys(self, count: int) -> None:
        if count > len(self.rows):
            self.rows = grown(self.rows, max(count, 2 * len(self.rows)), -1)

    def forget_key(self, key: int) -> None:
        self.rows[key] = NONE

    def referenced(self) -> NDArray[np.int32]:
        return self.rows

    def renumber(self, numbers: NDArray[np.int32]) -> None:
        self.rows = np.where(self.rows >= 0, numbers[self.rows], NONE)

    def dump(self) -> dict[str, NDArray[np.generic]]:
        return {"rows": self.rows}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self.rows = np.array(arrays["rows"])


class Last(RowByKey, StreamState):
    """The last row of the stream: also the last in every window that it is in."""

    def enter(self, rows: NDArray[np.int32]) -> None:
        _enter_last(self.rows, self.memory.store.columns, rows, *self.bit)

    def forget(self, rows: NDArray[np.int32], had_bit: NDArray[np.bool_]) -> None:
        memory = self.memory
        _forget_last(
            self.rows,
            memory.timelines.lists,
            memory.store.columns,
            rows[had_bit],
            *self.bit,
            np.int64(memory.now_us),
        )


class First(RowByKey, WindowedState):
    """The first row of the stream in the window: it moves on along the key's timeline as the window does."""

    def enter(self, rows: NDArray[np.int32]) -> None:
        _enter_first(self.rows, self.memory.store.columns, rows, *self.bit)

    def leave(self, rows: NDArray[np.int32]) -> None:
        memory = self.memory
        per_key = self.bounds.ttl_us is not None
        _move_first(
            self.rows,
            memory.timelines.lists,
            memory.store.columns,
            rows,
            *self.bit,
            np.int64(self.bounds.lower_us),
            self.bounds.session_starts,
            per_key,
            np.int64(memory.now_us),
        )

    def forget(self, rows: NDArray[np.int32], had_bit: NDArray[np.bool_]) -> None:
        self.leave(rows[had_bit])


@compiled
def _enter_last(last: NDArray[np.int32], columns: Rows, rows: NDArray[np.int32], word: int, mask: np.uint64) -> None:
    for i in range(len(rows)):
        row = rows[i]
        if columns.flags[row, word] & mask:
            key = columns.keys[row]
            if last[key] < 0 or precedes(columns, last[key], row):
                last[key] = row


@compiled
def _forget_last(
    last: NDArray[np.int32],
    lists: Lists,
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    now: np.int64,
) -> None:
    for i in range(len(rows)):
        key = columns.keys[rows[i]]
        if last[key] != rows[i]:
            continue
        last[key] = NONE
        for j in range(place_of(lists, columns, key, rows[i]) - 1, -1, -1):
            row = lists.pool[lists.start[key] + j]
            if columns.times[row] < now and columns.flags[row, word] & mask:
                last[key] = row
                break


@compiled
def _enter_first(first: NDArray[np.int32], columns: Rows, rows: NDArray[np.int32], word: int, mask: np.uint64) -> None:
    for i in range(len(rows)):
        row = rows[i]
        if columns.flags[row, word] & mask:
            key = columns.keys[row]
            if first[key] < 0 or precedes(columns, row, first[key]):
                first[key] = row


@compiled
def _move_first(
    first: NDArray[np.int32],
    lists: Lists,
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    lower: np.int64,
    starts: NDArray[np.int64],
    per_key: bool,
    now: np.int64,
) -> None:
    for i in range(len(rows)):
        key = columns.keys[rows[i]]
        if first[key] != rows[i]:
            continue
        first[key] = NONE
        begin = lists.start[key]
        bound = starts[key] if per_key else lower
        for j in range(begin + lower_bound(lists, columns, key, bound), begin + lists.length[key]):
            row = lists.pool[j]
            if columns.times[row] >= now:
                break
            if columns.flags[row, word] & mask:
                first[key] = row
                break


def first(aggregation: Aggregation, states: States) -> Reader:
    """The term of the first event."""
    state, memory = states.windowed(First, aggregation), states.memory
    decode = term_decoder(memory, aggregation.term_type)

    def read(key: int) -> Value | None:
        row = state.rows.item(key)
        return None if row < 0 else decode(state.values.item(row))

    return read


def last(aggregation: Aggregation, states: States) -> Reader:
    """The term of the last event."""
    state, memory, bounds = states.of_stream(Last, aggregation), states.memory, states.bounds(aggregation)
    decode = term_decoder(memory, aggregation.term_type)

    def read(key: int) -> Value | None:
        row = state.rows.item(key)
        if row < 0 or memory.store.columns.times.item(row) < bounds.lower(key):
            return None
        return decode(state.values.item(row))

    return read


def latest(aggregation: Aggregation, states: States) -> Reader:
    """The term of the last event, None when that event has no term."""
    newest = states.of_stream(Last, events_of(aggregation))
    with_term, read_last = states.of_stream(Last, aggregation), last(aggregation, states)

    def read(key: int) -> Value | None:
        return read_last(key) if newest.rows.item(key) == with_term.rows.item(key) else None

    return read


def events_of(aggregation: Aggregation) -> Aggregation:
    """The same over the filtered events, whether they have a term or not."""
    return replace(aggregation, function=Function.COUNTER, term=None, term_type=None)


def time_since_first(aggregation: Aggregation, states: States) -> Reader:
    """Seconds from the first event to now."""
    state, memory = states.windowed(First, aggregation), states.memory

    def read(key: int) -> Value | None:
        row = state.rows.item(key)
        return None if row < 0 else (memory.now_us - 1 - memory.store.columns.times.item(row)) / 1e6

    return read


def time_since_last(aggregation: Aggregation, states: States) -> Reader:
    """Seconds from the last event to now."""
    state, memory, bounds = states.of_stream(Last, aggregation), states.memory, states.bounds(aggregation)

    def read(key: int) -> Value | None:
        row = state.rows.item(key)
        if row < 0:
            return None
        time: int = memory.store.columns.times.item(row)
        return None if time < bounds.lower(key) else (memory.now_us - 1 - time) / 1e6

    return read


def many_firsts(aggregation: Aggregation, states: States) -> ManyReader:
    """First for many keys."""
    state = states.windowed(First, aggregation)

    def read(keys: NDArray[np.int32]) -> Gathered:
        rows = state.rows[keys]
        return Gathered(state.values[rows], rows >= 0, are_terms=True)

    return read


def many_lasts(aggregation: Aggregation, states: States) -> ManyReader:
    """Last for many keys."""
    state, bounds = states.of_stream(Last, aggregation), states.bounds(aggregation)

    def read(keys: NDArray[np.int32]) -> Gathered:
        rows = state.rows[keys]
        inside = (rows >= 0) & (states.memory.store.columns.times[rows] >= bounds.lowers(keys))
        return Gathered(state.values[rows], inside, are_terms=True)

    return read


def many_latest(aggregation: Aggregation, states: States) -> ManyReader:
    """Latest for many keys."""
    newest = states.of_stream(Last, events_of(aggregation))
    with_term, read_last = states.of_stream(Last, aggregation), many_lasts(aggregation, states)

    def read(keys: NDArray[np.int32]) -> Gathered | None:
        found = read_last(keys)
        if found is None:
            return None
        return found._replace(present=found.present & (newest.rows[keys] == with_term.rows[keys]))

    return read


def many_times_since_first(aggregation: Aggregation, states: States) -> ManyReader:
    """time_since_first for many keys."""
    state = states.windowed(First, aggregation)

    def read(keys: NDArray[np.int32]) -> Gathered:
        rows = state.rows[keys]
        return Gathered(_ages(states, rows), rows >= 0)

    return read


def many_times_since_last(aggregation: Aggregation, states: States) -> ManyReader:
    """time_since_last for many keys."""
    state, bounds = states.of_stream(Last, aggregation), states.bounds(aggregation)

    def read(keys: NDArray[np.int32]) -> Gathered:
        rows = state.rows[keys]
        inside = (rows >= 0) & (states.memory.store.columns.times[rows] >= bounds.lowers(keys))
        return Gathered(_ages(states, rows), inside)

    return read


def _ages(states: States, rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """Seconds since rows; anything where there is none."""
    memory = states.memory
    # The difference is right modulo 2^64 and not negative, as no row is later than now.
    ages = np.int64(memory.now_us - 1) - memory.store.columns.times[rows]
    return ages.view(np.uint64) / 1e6
