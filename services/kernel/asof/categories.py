"""unique_list, count_distinct, most_frequent, least_frequent, category_count over a moving span.

A *group* is a key with one of its terms. The groups inside the span are counted and linked in the order of their last
sighting: a row that comes in puts its group last, a row that goes out takes its group away with the last of its count.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.asof.question import Question, Values
from services.kernel.jit import njit

_LOW, _HIGH, _HEAD, _TAIL, _SIZE = range(5)
_MOST_ITEMS = 2**31 - 1


class _Chain(NamedTuple):
    """The groups inside the span."""

    counts: NDArray[np.int32]
    """By group."""
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    """By group its neighbours, -1 at the ends."""
    state: NDArray[np.int64]
    """The span [low, high), the groups seen least and most lately, and how many there are."""


class _Grouped(NamedTuple):
    """The rows of a stream by group."""

    groups: NDArray[np.int32]
    """By row."""
    terms: NDArray[np.int64]
    """By group."""

    def chain(self) -> _Chain:
        """A chain of nothing yet."""
        count = len(self.terms)
        before, after = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
        return _Chain(np.zeros(count, np.int32), before, after, np.array([0, 0, -1, -1, 0]))


def _grouped(question: Question) -> _Grouped:
    keys, terms = question.events.keys_of(question.rows.places), question.terms
    order = np.lexsort((terms, keys))
    new = np.ones(len(order), np.bool_)
    new[1:] = (terms[order[1:]] != terms[order[:-1]]) | (keys[order[1:]] != keys[order[:-1]])
    groups = np.empty(len(order), np.int32)
    groups[order] = np.cumsum(new) - 1
    return _Grouped(groups, terms[order[new]])


def count_distinct(question: Question) -> Values:
    """How many different terms."""
    grouped = _grouped(question)
    return Values(question.values(_distinct(grouped.groups, grouped.chain(), *question.span)))


def most_frequent(question: Question) -> Values:
    """The term seen most often; of equals, the one seen last."""
    return _by_frequency(question, 1)


def least_frequent(question: Question) -> Values:
    """The term seen least often; of equals, the one seen last."""
    return _by_frequency(question, -1)


def _by_frequency(question: Question, sign: int) -> Values:
    grouped, restored = _grouped(question), question.moments.restored
    best = _frequent(grouped.groups, grouped.chain(), *question.span, sign)
    terms = np.append(grouped.terms, np.int64(0))[best]
    return Values(question.events.decode(restored(terms), question.aggregation.term_type, restored(~question.present)))


def unique_list(question: Question) -> Values:
    """The different terms in the order of their last sighting, the newest last."""
    offsets, terms, _, truncated = _lists(question)
    return Values(pa.ListArray.from_arrays(offsets, terms), truncated)


def category_count(question: Question) -> Values:
    """How often each term was seen, in the order of their last sighting."""
    offsets, terms, counts, truncated = _lists(question)
    return Values(pa.MapArray.from_arrays(offsets, terms, counts), truncated)


def _lists(question: Question) -> tuple[pa.Array, pa.Array, pa.Array, NDArray[np.bool_] | None]:
    """Offsets (null where there is no list), terms, counts, and which lists were cut."""
    grouped, moments, limit = _grouped(question), question.moments, question.aggregation.limit
    sizes = moments.restored(_distinct(grouped.groups, grouped.chain(), *question.span))
    truncated = sizes > limit if limit else None
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.minimum(sizes, limit) if limit else sizes, out=offsets[1:])
    if offsets[-1] > _MOST_ITEMS:
        raise OverflowError(f"the lists would hold {offsets[-1]} items: ask for fewer pairs at once")
    order = np.arange(len(moments)) if moments.order is None else moments.order
    found, counts = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64)
    _fill(grouped.groups, grouped.chain(), *question.span, order, offsets, found, counts)
    absent = np.append(sizes == 0, np.False_)
    terms = question.events.decode(grouped.terms[found], question.aggregation.term_type)
    return pa.array(offsets.astype(np.int32), mask=absent), terms, pa.array(counts), truncated


@njit
def _unlink(chain: _Chain, group: int) -> None:
    before, after = chain.before[group], chain.after[group]
    if before >= 0:
        chain.after[before] = after
    else:
        chain.state[_HEAD] = after
    if after >= 0:
        chain.before[after] = before
    else:
        chain.state[_TAIL] = before


@njit
def _move(chain: _Chain, groups: NDArray[np.int32], first: int, stop: int) -> None:
    """Moves the span on to [first, stop), which is not empty and begins and ends no earlier than before."""
    state = chain.state
    if first >= state[_HIGH]:
        group = state[_HEAD]
        while group >= 0:
            chain.counts[group] = 0
            group = chain.after[group]
        state[_LOW] = state[_HIGH] = first
        state[_HEAD] = state[_TAIL] = -1
        state[_SIZE] = 0
    for i in range(state[_LOW], first):
        group = groups[i]
        chain.counts[group] -= 1
        if chain.counts[group] == 0:
            _unlink(chain, group)
            state[_SIZE] -= 1
    for i in range(state[_HIGH], stop):
        group = groups[i]
        if chain.counts[group] > 0:
            _unlink(chain, group)
        else:
            state[_SIZE] += 1
        chain.counts[group] += 1
        last = state[_TAIL]
        chain.before[group] = last
        chain.after[group] = -1
        if last >= 0:
            chain.after[last] = group
        else:
            state[_HEAD] = group
        state[_TAIL] = group
    state[_LOW] = first
    state[_HIGH] = stop


@njit
def _distinct(
    groups: NDArray[np.int32], chain: _Chain, first: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.int64]:
    result = np.zeros(len(first), np.int64)
    for p in range(len(first)):
        if first[p] < stop[p]:
            _move(chain, groups, first[p], stop[p])
            result[p] = chain.state[_SIZE]
    return result


@njit
def _frequent(
    groups: NDArray[np.int32], chain: _Chain, first: NDArray[np.int64], stop: NDArray[np.int64], sign: int
) -> NDArray[np.int64]:
    """The group with the most (sign 1) or fewest (-1) rows, by pair; -1 for an empty span."""
    result = np.full(len(first), -1)
    for p in range(len(first)):
        if first[p] < stop[p]:
            _move(chain, groups, first[p], stop[p])
            # The first of the best from behind is the one seen last.
            best = group = chain.state[_TAIL]
            while group >= 0:
                if sign * chain.counts[group] > sign * chain.counts[best]:
                    best = group
                group = np.int64(chain.before[group])
            result[p] = best
    return result


@njit
def _fill(
    groups: NDArray[np.int32],
    chain: _Chain,
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    order: NDArray[np.int64],
    offsets: NDArray[np.int64],
    found: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    """Writes each pair's groups at its place in the question, those seen last when there is no room for all."""
    for p in range(len(first)):
        if first[p] < stop[p]:
            _move(chain, groups, first[p], stop[p])
            group = chain.state[_TAIL]
            for i in range(offsets[order[p] + 1] - 1, offsets[order[p]] - 1, -1):
                found[i] = group
                counts[i] = chain.counts[group]
                group = np.int64(chain.before[group])
