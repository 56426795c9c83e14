"""One aggregation over all pairs: which rows each pair sees, and the status of what comes of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.aggregates.base import Stream
from services.kernel.aggregations import Aggregation
from services.kernel.asof.events import OrderedEvents, StreamRows
from services.kernel.asof.moments import Moments, Places, Span, ranks
from services.kernel.column import STATUS_CODES, Column
from services.kernel.jit import njit
from services.kernel.readings import Status
from services.kernel.windows import MIN_US


class Values(NamedTuple):
    """What a family of aggregates answers, in the order of the question."""

    array: pa.Array
    truncated: NDArray[np.bool_] | None = None
    """Where the value was cut to its limit."""


Family = Callable[["Question"], Values]
"""Computes the values of an aggregation; null where the span is empty."""


class Relevant:
    """The last event that passes a filter, whatever window: for statuses and for windows with a ttl."""

    def __init__(self, events: OrderedEvents, moments: Moments, stream: Stream) -> None:
        self.places = events.stream(stream).places
        self._events = events
        ranked = ranks(self.places, moments.stops) - 1
        """The number of the last row of the stream before t, of the pair's key if `seen`."""
        places = np.append(self.places, np.int32(-1))
        self.last: Places = places[ranked].astype(np.int64)
        self.seen: NDArray[np.bool_] = (self.last >= moments.starts) & (ranked >= 0) & (moments.codes >= 0)
        self.last_us: NDArray[np.int64] = np.full(len(moments), MIN_US)
        self.last_us[self.seen] = events.times[self.last[self.seen]]
        self._ranked = ranked

    def run_starts(self, ttl_us: int, moments: Moments) -> Places:
        """Where the run of events begins that the last one belongs to: each less than the ttl after the one before."""
        begins = moments.stops.copy()
        if self.seen.any():
            times = self._events.times[self.places]
            first_of_run = _run_starts(self._events.keys_of(self.places), times, np.int64(ttl_us))
            begins[self.seen] = self.places[first_of_run[self._ranked[self.seen]]]
        return begins


class Question:
    """One aggregation over all pairs; arrays are in the sorted order of the pairs."""

    def __init__(
        self,
        aggregation: Aggregation,
        events: OrderedEvents,
        moments: Moments,
        relevant: Relevant,
        rows: StreamRows,
        stops: Places,
        complete_since_us: int | None,
    ) -> None:
        self.aggregation, self.events, self.moments, self.rows = aggregation, events, moments, rows
        self._relevant, self._complete_since_us = relevant, complete_since_us
        self._begins, self._expired = self._window()
        first = np.minimum(ranks(rows.places, self._begins), stops)
        if self._expired is not None:
            first = np.where(self._expired, stops, first)
        self.span = Span(first, stops)
        self.present: NDArray[np.bool_] = first < stops

    @property
    def terms(self) -> NDArray[np.int64]:
        """The terms of the stream's rows."""
        assert self.rows.terms is not None, "the function looks at terms"
        return self.rows.terms

    def keep_latest(self) -> None:
        """Leaves out the pairs whose last relevant event is not of the stream: it has no term."""
        places = np.append(self.rows.places, np.int32(-1))[np.where(self.present, self.span.stop - 1, -1)]
        self.present = self.present & (places == self._relevant.last)

    def of_rows(self, numbers: Places) -> pa.Array:
        """The terms of one row of the stream for each pair, null where the span is empty; in the question's order."""
        terms = np.append(self.terms, np.int64(0))[np.where(self.present, numbers, -1)]
        restored = self.moments.restored
        return self.events.decode(restored(terms), self.aggregation.term_type, restored(~self.present))

    def values(self, numbers: NDArray[np.generic]) -> pa.Array:
        """Numbers of pairs as an array in the order of the question, null where the span is empty."""
        return pa.array(self.moments.restored(numbers), mask=self.moments.restored(~self.present))

    def column(self, family: Family) -> Column:
        """The values, and what there is to say about them."""
        values = family(self)
        statuses = self.moments.restored(self._statuses())
        if values.truncated is not None:
            statuses[values.truncated] = STATUS_CODES[Status.TRUNCATED]
        covered = self._mark_uncovered(statuses)
        return Column(values.array, statuses, self.moments.restored(self._relevant.last_us), covered)

    def _window(self) -> tuple[Places, NDArray[np.bool_] | None]:
        """The first event inside, by pair; and with a ttl which pairs come after it."""
        ttl_us, moments, relevant = self.aggregation.ttl_us, self.moments, self._relevant
        if ttl_us is None:
            return moments.begins(self.aggregation.window), None
        # The last event is before t, so the age is not negative and is right modulo 2^64.
        age = (moments.instants_us - 1 - relevant.last_us).view(np.uint64)
        return relevant.run_starts(ttl_us, moments), relevant.seen & (age >= np.uint64(ttl_us))

    def _statuses(self) -> NDArray[np.int8]:
        statuses = np.full(len(self.moments), STATUS_CODES[Status.NULL], np.int8)
        statuses[self.present] = STATUS_CODES[Status.PRESENT]
        statuses[self._relevant.last < self._begins] = STATUS_CODES[Status.EMPTY_WINDOW]
        if self._expired is not None:
            statuses[self._expired] = STATUS_CODES[Status.EXPIRED]
        statuses[~self._relevant.seen] = STATUS_CODES[Status.NEVER_SEEN]
        return statuses

    def _mark_uncovered(self, statuses: NDArray[np.int8]) -> NDArray[np.float64] | None:
        """Marks the windows that begin before the log does; gives the parts of them that it covers."""
        since = self._complete_since_us
        if since is None:
            return None
        moments, relevant = self.moments, self._relevant
        if self.aggregation.ttl_us is None:
            lower = moments.lower_bounds_us(self.aggregation.window)
        else:
            lower = moments.instants_us.copy()
            lower[relevant.seen] = self.events.times[self._begins[relevant.seen]]
        lower, now = moments.restored(lower), moments.restored(moments.instants_us)
        uncovered = (lower < since) & (statuses != STATUS_CODES[Status.EXPIRED])
        statuses[uncovered] = STATUS_CODES[Status.LEFT_TRUNCATED]
        covered = np.ones(len(moments))
        covered[uncovered] = 0.0
        partly = uncovered & (lower != MIN_US) & (lower < now)
        covered[partly] = np.maximum(0.0, (now[partly] - since) / (now[partly] - lower[partly]))
        return covered


@njit
def _run_starts(keys: NDArray[np.int32], times: NDArray[np.int64], ttl: np.int64) -> NDArray[np.int64]:
    starts = np.zeros(len(keys), np.int64)
    for i in range(1, len(keys)):
        goes_on = keys[i] == keys[i - 1] and times[i] - times[i - 1] < ttl
        starts[i] = starts[i - 1] if goes_on else i
    return starts
