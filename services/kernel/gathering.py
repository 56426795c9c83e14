"""Columns: the readings of many keys at once, for whoever looks at all profiles or at all that were touched."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.aggregates import MANY_READERS
from services.kernel.aggregates.base import Gathered, Stream
from services.kernel.aggregates.endpoints import Last
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.column import STATUS_CODES, Column
from services.kernel.readings import Answers, Status
from services.kernel.registry import Registry
from services.kernel.windows import MIN_US

_ELEMENTS = {
    TermType.STRING: pa.string(),
    TermType.INTEGER: pa.int64(),
    TermType.NUMBER: pa.float64(),
    TermType.BOOLEAN: pa.bool_(),
    TermType.TIMESTAMP: pa.int64(),
}


class Gatherer:
    """Makes columns of an engine's states. They equal its readings, key by key."""

    def __init__(self, aggregations: Sequence[Aggregation], registry: Registry, answers: Answers) -> None:
        self._aggregations = aggregations
        self._registry = registry
        self._memory = registry.memory
        self._answers = answers
        self._many = [
            MANY_READERS[each.function](each, registry) if each.function in MANY_READERS else None
            for each in aggregations
        ]

    def column(self, index: int, codes: NDArray[np.int32]) -> Column:
        """The readings of one aggregation, by its place, for the keys of some codes; -1 is a key never seen."""
        many = self._many[index]
        if many is None or not len(codes) or codes.max() < 0:
            return self._one_by_one(index, codes)
        known = np.maximum(codes, 0)
        gathered = many(known)
        if gathered is None:
            return self._one_by_one(index, codes)
        statuses, last_us = self._statuses(self._aggregations[index], codes, known, gathered.present)
        absent = statuses != STATUS_CODES[Status.PRESENT]
        if gathered.truncated is not None:
            statuses[gathered.truncated & ~absent] = STATUS_CODES[Status.TRUNCATED]
        values = self._array(self._aggregations[index], gathered, absent)
        covered = self._mark_uncovered(self._aggregations[index], known, statuses)
        return Column(values, statuses, last_us, covered)

    def _statuses(
        self, aggregation: Aggregation, codes: NDArray[np.int32], known: NDArray[np.int32], present: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """As `Answers.reading` decides, for all: the later a rule stands there, the earlier here."""
        bounds = self._registry.bounds(aggregation)
        rows = self._registry.state_of(Last, Stream(aggregation.filter)).rows[known]
        seen = (rows >= 0) & (codes >= 0)
        last_us = np.where(seen, self._memory.store.columns.times[rows], np.int64(MIN_US))
        statuses = np.full(len(codes), STATUS_CODES[Status.NULL], np.int8)
        statuses[present] = STATUS_CODES[Status.PRESENT]
        statuses[last_us < bounds.lowers(known)] = STATUS_CODES[Status.EMPTY_WINDOW]
        if aggregation.ttl_us is not None:
            ages = (np.int64(self._memory.now_us - 1) - last_us).view(np.uint64)
            statuses[ages >= np.uint64(aggregation.ttl_us)] = STATUS_CODES[Status.EXPIRED]
        statuses[~seen] = STATUS_CODES[Status.NEVER_SEEN]
        return statuses, last_us

    def _mark_uncovered(
        self, aggregation: Aggregation, known: NDArray[np.int32], statuses: NDArray[np.int8]
    ) -> NDArray[np.float64] | None:
        """Marks the windows that begin before the log does; gives the parts of them that it covers."""
        since, now = self._answers.complete_since_us, self._memory.now_us
        if since is None:
            return None
        lower = self._registry.bounds(aggregation).lowers(known)
        if aggregation.ttl_us is not None:
            lower = np.where(statuses == STATUS_CODES[Status.NEVER_SEEN], np.int64(now), lower)
        uncovered = (lower < since) & (statuses != STATUS_CODES[Status.EXPIRED])
        statuses[uncovered] = STATUS_CODES[Status.LEFT_TRUNCATED]
        covered = np.where(uncovered, 0.0, 1.0)
        partly = uncovered & (lower != MIN_US) & (lower < now)
        covered[partly] = np.maximum(0.0, (now - since) / (now - lower[partly]))
        return covered

    def _array(self, aggregation: Aggregation, gathered: Gathered, absent: NDArray[np.bool_]) -> pa.Array:
        if gathered.offsets is None:
            return self._decoded(aggregation.term_type if gathered.are_terms else None, gathered.values, absent)
        items = self._decoded(aggregation.term_type, gathered.values, np.zeros(len(gathered.values), np.bool_))
        return pa.ListArray.from_arrays(pa.array(gathered.offsets), items, mask=pa.array(absent))

    def _decoded(
        self,
        term_type: TermType | None,
        values: NDArray[np.int64] | NDArray[np.float64],
        absent: NDArray[np.bool_],
    ) -> pa.Array:
        """Numbers, or terms of a type, as an array."""
        if term_type is TermType.STRING:
            # Only the texts that occur: the interner may hold many times as many.
            distinct, places = np.unique(np.where(absent, np.int64(0), values), return_inverse=True)
            texts = self._memory.strings.array()
            if not len(texts) or not len(values):
                return pa.nulls(len(values), pa.dictionary(pa.int32(), pa.string()))
            taken = texts.take(pa.array(distinct)).cast(pa.string())
            return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32), mask=absent), taken)
        if term_type is TermType.NUMBER:
            return pa.array(values.view(np.float64), mask=absent)
        if term_type is TermType.BOOLEAN:
            return pa.array(values != 0, mask=absent)
        return pa.array(values, mask=absent)

    def _one_by_one(self, index: int, codes: NDArray[np.int32]) -> Column:
        readings = [self._answers.reading(index, None if code < 0 else code) for code in codes.tolist()]
        values = [reading.value for reading in readings]
        kind = _type_of(self._aggregations[index])
        if kind == pa.int64() and any(value is not None and not -(2**63) <= value < 2**63 for value in values):  # type: ignore[operator]
            kind = pa.decimal128(38, 0)
        plain = [list(value.items()) if isinstance(value, dict) else value for value in values]
        last_us = [MIN_US if reading.last_event_us is None else reading.last_event_us for reading in readings]
        return Column(
            pa.array(plain, kind),
            np.array([STATUS_CODES[reading.status] for reading in readings], np.int8),
            np.array(last_us, np.int64),
            None
            if self._answers.complete_since_us is None
            else np.array([reading.covered_fraction for reading in readings]),
        )


def _type_of(aggregation: Aggregation) -> pa.DataType:
    """The Arrow type of an aggregation's values."""
    function, element = aggregation.function, pa.int64()
    if aggregation.term_type is not None:
        element = _ELEMENTS[aggregation.term_type]
    if function is Function.UNIQUE_LIST:
        return pa.list_(element)
    if function is Function.CATEGORY_COUNT:
        return pa.map_(element, pa.int64())
    if function in (Function.MEAN, Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST):
        return pa.float64()
    if function in (Function.COUNTER, Function.COUNT_DISTINCT, Function.APPROX_COUNT_DISTINCT):
        return pa.int64()
    return element
