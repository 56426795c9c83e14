"""Time that passes: rows enter and leave ranges one instant after the other, and whoever they concern is decided then.

So what time alone changes holds since the very instant at which it changed, and what applied for a while between two
instants of the clock is seen too. A row costs a look at the parts that use its range, whatever the length of the jump.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.cells import SUM, Cells, Parts, Queue, add_number, cell_of, enqueue, longer, with_room
from services.insights.engine.passes import CHUNK, Pass, Tables
from services.insights.engine.programs import FROM_ROWS, TRUE, Programs, run_program
from services.insights.engine.rows import Ints, RowNumbers, SourceRows
from services.insights.engine.states import APPLIES, NOT, Changes
from services.kernel.jit import compiled
from services.kernel.rows import grown

FromRows = Callable[[int, int, int], int]
"""From a query, a customer and an instant to the state, evaluated from the rows."""
_STATE = 0x7F


class Crossings(NamedTuple):
    """Rows of one source that enter (sign 1) or leave (-1) ranges, each at its instant."""

    rows: RowNumbers
    places: NDArray[np.int32]
    signs: NDArray[np.int8]
    instants: Ints


class _Found(NamedTuple):
    """Changes as they are found, and how many."""

    queries: NDArray[np.int32]
    customers: NDArray[np.int32]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    instants: NDArray[np.int64]
    used: NDArray[np.int64]


class Walk:
    """Moves the ranges of all sources from one instant to a later one."""

    def __init__(
        self,
        tables: Tables,
        programs: Programs,
        states: NDArray[np.uint8],
        scratch: tuple[NDArray[np.int64], NDArray[np.int64]],
        from_rows: FromRows,
    ) -> None:
        """Pairs that are queued already stay so: they are decided later."""
        self._tables, self._programs, self._states, self._scratch = tables, programs, states, scratch
        self._from_rows = from_rows
        self._base = int(tables.queue.used[0])
        self._found = _empty(1024)

    def run(self, sources: Iterable[tuple[Pass, SourceRows]], before_us: int, now_us: int) -> Changes:
        """Returns what changed, in order."""
        given = [(made, rows, crossings(made, rows, before_us, now_us)) for made, rows in sources if len(made)]
        instants = np.concatenate([each.instants for _, _, each in given]) if given else np.zeros(0, np.int64)
        of = np.concatenate([np.full(len(each.instants), i) for i, (_, _, each) in enumerate(given)] or [instants])
        order = np.argsort(instants, kind="stable")
        instants, of = instants[order], of[order]
        starts = np.cumsum([0, *(len(each.instants) for _, _, each in given)])
        # Runs of one source each: what a query reads of several sources changes in the order of time.
        cuts = np.flatnonzero(np.diff(of)) + 1
        for first, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(of)], strict=True):
            for at in range(first, stop, CHUNK):
                end = min(at + CHUNK, stop)
                made, rows, each = given[int(of[at])]
                chosen = order[at:end] - starts[int(of[at])]
                last = end == len(instants) or instants[end] != instants[end - 1]
                self._walk(made, rows, Crossings(*(column[chosen] for column in each)), bool(last))
        used = int(self._found.used[0])
        return Changes(*(column[:used].copy() for column in self._found[:-1]))  # type: ignore[arg-type]

    def _walk(self, made: Pass, rows: SourceRows, chosen: Crossings, decide_last: bool) -> None:
        view = rows.view(chosen.rows)
        conditions, terms = made.evaluated(view)
        term_bits, done, settled = terms.view(np.int64), 0, int(self._found.used[0])
        while done < len(view):
            tables = self._tables
            done = int(
                _walk(
                    tables.counts,
                    tables.sums,
                    made.parts,
                    made.by_range,
                    conditions,
                    terms,
                    term_bits,
                    view.customers,
                    chosen.places,
                    chosen.signs,
                    chosen.instants,
                    done,
                    decide_last,
                    self._states,
                    tables.queue,
                    self._base,
                    self._programs,
                    *self._scratch,
                    self._found,
                )
            )
            settled = self._decide_from_rows(settled)
            parts, queries = len(made), len(made.parts.queries)
            tables.counts, tables.sums = with_room(tables.counts, parts), with_room(tables.sums, parts)
            tables.queue = longer(tables.queue, queries)
            self._found = _room(self._found, queries + int(tables.queue.used[0]) - self._base)

    def _decide_from_rows(self, first: int) -> int:
        """Decides the pairs that the totals could not; those found to be as before are dropped."""
        found, used = self._found, int(self._found.used[0])
        kept = first
        for i in range(first, used):
            query, customer = int(found.queries[i]), int(found.customers[i])
            if found.after[i] == 0:
                found.after[i] = self._from_rows(query, customer, int(found.instants[i]))
                self._states[customer, query] = found.after[i]
            if found.after[i] != found.before[i]:
                for column in found[:-1]:
                    column[kept] = column[i]
                kept += 1
        found.used[0] = kept
        return kept


def crossings(made: Pass, rows: SourceRows, before_us: int, now_us: int) -> Crossings:
    """What enters and leaves the ranges of a pass when time goes from one instant to another."""
    found: list[Crossings] = []
    for each, place in made.ranges.items():
        if each.everything:
            continue
        lower, upper = each.bounds_us(before_us)
        new_lower, new_upper = each.bounds_us(now_us)
        if new_lower > lower:
            leaving = rows.between(lower, min(new_lower, upper))
            found.append(_crossing(leaving, place, -1, each.leaves_us(rows.store.columns.times[leaving])))
        if new_upper > upper:
            entering = rows.between(upper, new_upper)
            times = rows.store.columns.times[entering]
            enters, leaves = each.enters_us(times), each.leaves_us(times)
            # Rows that are behind the start by the time that the end reaches them are never inside.
            some, gone = enters < leaves, (enters < leaves) & (leaves <= now_us)
            found.append(_crossing(entering[some], place, 1, enters[some]))
            found.append(_crossing(entering[gone], place, -1, leaves[gone]))
    if not found:
        return _crossing(np.zeros(0, np.int32), 0, 0, np.zeros(0, np.int64))
    return Crossings(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _crossing(rows: RowNumbers, place: int, sign: int, instants: Ints) -> Crossings:
    return Crossings(rows, np.full(len(rows), place, np.int32), np.full(len(rows), sign, np.int8), instants)


def _empty(size: int) -> _Found:
    numbers, states = np.zeros(size, np.int32), np.zeros(size, np.uint8)
    return _Found(numbers, numbers.copy(), states, states.copy(), np.zeros(size, np.int64), np.zeros(1, np.int64))


def _room(found: _Found, added: int) -> _Found:
    """The changes found, with room for so many more."""
    used = int(found.used[0])
    if used + added <= len(found.queries):
        return found
    size = 2 * (used + added)
    return _Found(
        grown(found.queries, size),
        grown(found.customers, size),
        grown(found.before, size),
        grown(found.after, size),
        grown(found.instants, size),
        found.used,
    )


@compiled
def _walk(
    counts: Cells,
    sums: Cells,
    parts: Parts,
    by_range: tuple[NDArray[np.int32], NDArray[np.int32]],
    conditions: NDArray[np.uint64],
    terms: NDArray[np.float64],
    term_bits: NDArray[np.int64],
    customers: NDArray[np.int32],
    places: NDArray[np.int32],
    signs: NDArray[np.int8],
    instants: NDArray[np.int64],
    first: int,
    decide_last: bool,
    states: NDArray[np.uint8],
    queue: Queue,
    base: int,
    programs: Programs,
    scratch: NDArray[np.int64],
    rounding: NDArray[np.int64],
    found: _Found,
) -> int:
    """Goes on at row `first`; after the rows of each instant those are decided whom they concern.

    Returns the row to go on at: all are done; or there was no room; or somebody's rows are to be asked, whose state
    `found` has as 0.
    """
    rows, count, concerned = len(customers), len(parts.total), len(parts.queries)
    for row in range(first, rows):
        pending = queue.used[0] - base
        if (
            counts.used[0] + count > len(counts.rows)
            or sums.used[0] + count > len(sums.rows)
            or queue.used[0] + concerned > len(queue.customers)
            or found.used[0] + pending + concerned > len(found.queries)
        ):
            return row
        word, bit = row >> 6, np.uint64(1) << np.uint64(row & 63)
        customer = customers[row]
        for j in range(by_range[0][places[row]], by_range[0][places[row] + 1]):
            part = by_range[1][j]
            holds = True
            for c in range(parts.starts[part], parts.starts[part + 1]):
                if not conditions[parts.conditions[c], word] & bit:
                    holds = False
                    break
            term = parts.term[part]
            if not holds or (term >= 0 and np.isnan(terms[term, row])):
                continue
            if parts.sums[part] == SUM:
                cell = cell_of(sums, parts.total[part], customer)
                add_number(sums, cell, terms[term, row], term_bits[term, row], signs[row])
            else:
                cell = cell_of(counts, parts.total[part], customer)
                counts.rows[cell, 1] += signs[row]
            for q in range(parts.query_starts[part], parts.query_starts[part + 1]):
                enqueue(queue, states, customer, parts.queries[q])
        if instants[row + 1] == instants[row] if row + 1 < rows else not decide_last:
            continue
        asked = False
        for i in range(base, queue.used[0]):
            who, query = queue.customers[i], queue.queries[i]
            before = states[who, query] & _STATE
            start = programs.starts[query]
            verdict = FROM_ROWS
            if start >= 0:
                stop = programs.stops[query]
                verdict = run_program(programs, start, stop, counts, sums, who, scratch, rounding)
            after = 0
            if verdict != FROM_ROWS:
                after = APPLIES if verdict == TRUE else NOT
                states[who, query] = after
            else:
                states[who, query] = before
                asked = True
            if after != before:
                at = found.used[0]
                found.queries[at], found.customers[at], found.instants[at] = query, who, instants[row]
                found.before[at], found.after[at] = before, after
                found.used[0] = at + 1
        queue.used[0] = base
        if asked:
            return row + 1
    return rows
