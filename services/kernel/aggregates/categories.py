"""unique_list, count_distinct, most_frequent, least_frequent, category_count: what was seen, how often, when last."""

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Gathered, ManyReader, Reader, Scalar, States, Value, term_decoder
from services.kernel.aggregates.pairs import PairCounts, Pairs, count_pairs
from services.kernel.aggregations import Aggregation, TermType


def _counts(aggregation: Aggregation, states: States) -> PairCounts:
    counts, pairs = states.windowed(PairCounts, aggregation), states.of_stream(Pairs, aggregation)
    pairs.of_strings = aggregation.term_type is TermType.STRING
    count_pairs(pairs, counts)
    return counts


def unique_list(aggregation: Aggregation, states: States) -> Reader:
    """The different terms in the order of their last sighting, the newest last."""
    state, decode = _counts(aggregation, states), term_decoder(states.memory, aggregation.term_type)

    def read(key: int) -> Value | None:
        terms = state.pairs.table.terms
        return [decode(terms.item(pair)) for pair in state.seen(key)] or None

    return read


def many_unique_lists(aggregation: Aggregation, states: States) -> ManyReader:
    """unique_list for many keys."""
    state, limit = _counts(aggregation, states), aggregation.limit

    def read(keys: NDArray[np.int32]) -> Gathered:
        terms, offsets = state.many_seen(keys, limit)
        distinct = state.distinct[keys]
        truncated = distinct > limit if limit else None
        return Gathered(terms, distinct > 0, are_terms=True, offsets=offsets, truncated=truncated)

    return read


def count_distinct(aggregation: Aggregation, states: States) -> Reader:
    """How many different terms."""
    state = _counts(aggregation, states)

    def read(key: int) -> Value | None:
        return state.distinct.item(key) or None

    return read


def many_distinct_counts(aggregation: Aggregation, states: States) -> ManyReader:
    """count_distinct for many keys."""
    state = _counts(aggregation, states)

    def read(keys: NDArray[np.int32]) -> Gathered:
        counts = state.distinct[keys].astype(np.int64)
        return Gathered(counts, counts > 0)

    return read


def category_count(aggregation: Aggregation, states: States) -> Reader:
    """How often each term was seen, in the order of their last sighting."""
    state, decode = _counts(aggregation, states), term_decoder(states.memory, aggregation.term_type)

    def read(key: int) -> Value | None:
        terms, counts = state.pairs.table.terms, state.counts
        return {decode(terms.item(pair)): counts.item(pair) for pair in state.seen(key)} or None

    return read


def most_frequent(aggregation: Aggregation, states: States) -> Reader:
    """The term seen most often; of equals, the one seen last."""
    return _by_frequency(aggregation, states, 1)


def least_frequent(aggregation: Aggregation, states: States) -> Reader:
    """The term seen least often; of equals, the one seen last."""
    return _by_frequency(aggregation, states, -1)


def _by_frequency(aggregation: Aggregation, states: States, sign: int) -> Reader:
    state, decode = _counts(aggregation, states), term_decoder(states.memory, aggregation.term_type)

    def read(key: int) -> Scalar | None:
        # The first of the best from behind: the pairs come in the order of their last sighting.
        best = max(reversed(state.seen(key)), key=lambda pair: sign * state.counts.item(pair), default=None)
        return None if best is None else decode(state.pairs.table.terms.item(best))

    return read
