"""The events behind a value: which are relevant, which of them the value is made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.definitions import Value, ValueType
from services.features.past import ask
from services.features.past_pairs import Pair
from services.kernel.aggregates.base import Stream, stream_of
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.asof import AsOf, Column
from services.kernel.asof.events import Events
from services.kernel.columns import DELETE, EventBatch
from services.kernel.expressions import Instant
from services.kernel.windows import MIN_US

VALUE_TYPES = {
    TermType.STRING: ValueType.STRING,
    TermType.INTEGER: ValueType.INT64,
    TermType.NUMBER: ValueType.DOUBLE,
    TermType.BOOLEAN: ValueType.BOOL,
    TermType.TIMESTAMP: ValueType.TIMESTAMP,
}
"""The type of a term as a value."""


@dataclass(frozen=True, slots=True)
class ExplainedEvent:
    """One relevant event. Times are microseconds."""

    event_id: str
    event_type: str
    occurred_us: int
    received_us: int
    revision: int
    term: Value | None
    in_window: bool
    counted: bool
    """Whether the value is made of it."""
    decisive: bool
    """Whether the value is this event's alone."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A value and a page of the events behind it, newest first."""

    columns: list[Column]
    """Of one entry each: the value, then what else was asked for."""
    window_start_us: int | None
    """None for a lifetime."""
    relevant: int
    counted: int
    events: tuple[ExplainedEvent, ...]


class _Told(NamedTuple):
    """An event that is told of: of one id there may be several, as long ago as the log remembers ids."""

    event_id: str
    occurred_us: int


class _Facts(NamedTuple):
    """What a record says beside its terms."""

    event_type: str
    occurred_us: int
    received_us: int
    revision: int


class Page(NamedTuple):
    """Which of the relevant events to tell of."""

    offset: int
    size: int


def explain(
    attribute_key: str,
    aggregations: Sequence[Aggregation],
    pair: Pair,
    batches: Iterable[EventBatch],
    complete_since_us: int | None,
    page: Page,
) -> Explanation:
    """Recomputes values from the records of their key and says what the first is made of."""
    engine = AsOf(attribute_key, aggregations, 0, complete_since_us)
    held = list(batches)
    relevant = _Relevant(attribute_key, aggregations[0], pair, held)
    for batch in held:
        engine.add(batch)
    start_us, in_window = relevant.window()
    counted = relevant.counted(in_window)
    decisive = relevant.decisive(counted)
    newest_first = range(len(relevant.rows) - 1, -1, -1)[page.offset : page.offset + page.size]
    told = [relevant.event(i) for i in newest_first]
    facts = _facts(held, told)
    terms = relevant.terms_of(newest_first)
    return Explanation(
        columns=ask(engine, [pair]),
        window_start_us=start_us,
        relevant=len(relevant.rows),
        counted=int(counted.sum()),
        events=tuple(
            ExplainedEvent(
                told[k].event_id, *facts[told[k]], terms[k], bool(in_window[i]), bool(counted[i]), i == decisive
            )
            for k, i in enumerate(newest_first)
        ),
    )


class _Relevant:
    """The events of a key that pass an aggregation's filter, before an instant, in order."""

    def __init__(self, attribute_key: str, aggregation: Aggregation, pair: Pair, batches: Sequence[EventBatch]) -> None:
        self._aggregation, self._instant_us = aggregation, pair.instant_us
        events = Events(attribute_key, [aggregation], 0)
        for batch in batches:
            events.add(batch)
        self._events = events
        self._ordered = events.ordered()
        code = events.key_codes.find(pair.key_value)
        places = np.empty(0, np.int32)
        if code is not None:
            first, last = self._ordered.key_starts[code : code + 2].tolist()
            places = self._ordered.stream(Stream(aggregation.filter)).places
            places = places[(places >= first) & (places < last)]
            places = places[self._ordered.times[places] < pair.instant_us]
        self.rows: NDArray[np.int32] = places
        """Their places in the order of all events."""
        self.times: NDArray[np.int64] = self._ordered.times[places]
        stream = self._ordered.stream(stream_of(aggregation))
        found = np.searchsorted(stream.places, places)
        self._found = np.minimum(found, max(len(stream.places) - 1, 0))
        self._has_term = stream.places[self._found] == places if len(stream.places) else np.zeros(len(places), np.bool_)
        self._terms = stream.terms

    def window(self) -> tuple[int | None, NDArray[np.bool_]]:
        """Where the window begins, and which events are in it."""
        ttl_us, t_us = self._aggregation.ttl_us, self._instant_us
        if ttl_us is None:
            lower = self._aggregation.window.lower_bound_us(t_us)
            return (None if lower == MIN_US else lower), self.times >= lower
        if not len(self.times) or t_us - 1 - int(self.times[-1]) >= ttl_us:
            return t_us, np.zeros(len(self.times), np.bool_)
        breaks = np.flatnonzero(np.diff(self.times) >= ttl_us)
        lower = int(self.times[breaks[-1] + 1 if len(breaks) else 0])
        return lower, self.times >= lower

    def counted(self, in_window: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which events the value is made of."""
        counted = in_window.copy() if self._aggregation.term is None else in_window & self._has_term
        if self._aggregation.function is Function.LATEST:
            counted[:-1] = False
        return counted

    def decisive(self, counted: NDArray[np.bool_]) -> int:
        """The event that alone makes the value, -1 where all counted ones do."""
        numbers = np.flatnonzero(counted)
        function = self._aggregation.function
        if not len(numbers):
            return -1
        if function in (Function.FIRST, Function.TIME_SINCE_FIRST):
            return int(numbers[0])
        if function in (Function.LAST, Function.LATEST, Function.TIME_SINCE_LAST):
            return int(numbers[-1])
        if function in (Function.MIN, Function.MAX):
            assert self._terms is not None, "the function looks at terms"
            terms = self._terms[self._found[numbers]]
            ordered = terms.view(np.float64) if self._aggregation.term_type is TermType.NUMBER else terms
            return int(numbers[ordered.argmin() if function is Function.MIN else ordered.argmax()])
        return -1

    def event(self, i: int) -> _Told:
        """The id and the time of an event."""
        store = self._events.registry.memory.store
        return _Told(store.event_id(int(self._ordered.rows[self.rows[i]])), int(self.times[i]))

    def terms_of(self, numbers: Sequence[int]) -> list[Value | None]:
        """The terms of some events; None where there is none."""
        term_type = self._aggregation.term_type
        if self._terms is None or term_type is None or not numbers:
            return [None] * len(numbers)
        chosen = np.array(numbers, np.int64)
        values: list[Value | None] = self._ordered.decode(
            np.append(self._terms, np.int64(0))[self._found[chosen]], term_type, ~self._has_term[chosen]
        ).to_pylist()
        if term_type is TermType.TIMESTAMP:
            return [None if value is None else Instant(value) for value in values]  # type: ignore[arg-type]
        return values


def _facts(batches: Sequence[EventBatch], told: Sequence[_Told]) -> dict[_Told, _Facts]:
    """Type, event time, receipt and revision of events, of the newest version that is like the one told."""
    found: dict[_Told, _Facts] = {}
    wanted = set(told)
    ids = pa.array(sorted({event_id for event_id, _ in told}), pa.string())
    for batch in batches:
        mine = pc.is_in(batch.record_batch.column("event_id"), value_set=ids)
        rows = np.flatnonzero(mine.to_numpy(zero_copy_only=False) & (batch.operation != DELETE))
        for row in batch.take(rows).record_batch.select(_FACTS).to_pylist() if len(rows) else ():
            event = _Told(row["event_id"], row["occurred_at"])
            if event in wanted:
                found[event] = _Facts(row["event_type"], row["occurred_at"], row["received_at"], row["revision"])
    return found


_FACTS = ["event_id", "event_type", "occurred_at", "received_at", "revision"]
