"""The streams, windows and states of an engine: each made once, shared by all aggregations that ask for it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Bounds, Memory, State, Stream, StreamState, WindowedState, stream_of
from services.kernel.aggregations import Aggregation, TermType
from services.kernel.columns import EventBatch
from services.kernel.expressions import AllOf, Expression, Property
from services.kernel.interning import Interner
from services.kernel.rows import RowStore, grown, stream_bit
from services.kernel.terms import Terms, extract
from services.kernel.timelines import Timelines
from services.kernel.windows import MIN_US

W = TypeVar("W", bound=WindowedState)
S = TypeVar("S", bound=StreamState)


class Registry:
    """Gives out states (the `States` protocol), and says which streams the events of a batch belong to."""

    def __init__(self, aggregations: Sequence[Aggregation]) -> None:
        filters = [Stream(aggregation.filter) for aggregation in aggregations]
        streams = [stream_of(aggregation) for aggregation in aggregations]
        self.streams = {stream: i for i, stream in enumerate(dict.fromkeys([*filters, *streams]))}
        """Each with the number of its bit in the flags of rows."""
        self.terms: list[tuple[Property, TermType]] = list(
            dict.fromkeys((s.term, s.term_type) for s in self.streams if s.term and s.term_type)
        )
        self.memory = Memory(RowStore(len(self.streams), len(self.terms)), Timelines(), Interner())
        self._bounds: dict[tuple[object, ...], Bounds] = {}
        self._windowed: dict[tuple[type[WindowedState], Stream, Bounds], WindowedState] = {}
        self._of_stream: dict[tuple[type[StreamState], Stream], StreamState] = {}

    def bounds(self, aggregation: Aggregation) -> Bounds:
        """The bounds of an aggregation's window; with a ttl they belong to its filter."""
        ttl = aggregation.ttl_us
        stream = Stream(aggregation.filter)
        key = (aggregation.window, None, None) if ttl is None else (aggregation.window, ttl, stream)
        return self._bounds.setdefault(key, Bounds(aggregation.window, ttl, stream))

    def windowed(self, kind: type[W], aggregation: Aggregation) -> W:
        """The state of the aggregation's stream in its window."""
        stream, bounds = stream_of(aggregation), self.bounds(aggregation)
        state = self._windowed.get((kind, stream, bounds))
        if state is None:
            state = kind(self.memory, self.bit(stream), self.term_index(stream), bounds)
            self._windowed[kind, stream, bounds] = state
        assert isinstance(state, kind)
        return state

    def of_stream(self, kind: type[S], aggregation: Aggregation) -> S:
        """The state of the aggregation's stream."""
        return self.state_of(kind, stream_of(aggregation))

    def state_of(self, kind: type[S], stream: Stream) -> S:
        """The state of a stream."""
        state = self._of_stream.get((kind, stream))
        if state is None:
            state = self._of_stream[kind, stream] = kind(self.memory, self.bit(stream), self.term_index(stream))
        assert isinstance(state, kind)
        return state

    def bit(self, stream: Stream) -> Any:
        """The bit of a stream in the flags of rows."""
        return stream_bit(self.streams[stream])

    def term_index(self, stream: Stream) -> int | None:
        """The place of a stream's term among the terms, or None when it has none."""
        if stream.term is None or stream.term_type is None:
            return None
        return self.terms.index((stream.term, stream.term_type))

    @property
    def all_bounds(self) -> list[Bounds]:
        """The bounds of all windows, in the order in which they were made."""
        return list(self._bounds.values())

    @property
    def windows(self) -> list[WindowedState]:
        """The states of windows."""
        return list(self._windowed.values())

    @property
    def whole(self) -> list[StreamState]:
        """The states of streams."""
        return list(self._of_stream.values())

    @property
    def states(self) -> list[State]:
        """All states, in the order in which they were made."""
        return [*self.whole, *self.windows]

    def reserve_keys(self, count: int) -> None:
        """Makes room for so many keys, everywhere."""
        self.memory.timelines.reserve_keys(count)
        for state in self.states:
            state.reserve_keys(count)
        for bounds in self._bounds.values():
            if bounds.ttl_us is not None and count > len(bounds.session_starts):
                size = max(count, 2 * len(bounds.session_starts))
                bounds.session_starts = grown(bounds.session_starts, size, MIN_US)

    def sort_out(self, batch: EventBatch) -> tuple[NDArray[np.uint64], list[Terms]]:
        """The flags of all rows of a batch (rows by words), and its terms."""
        terms = [extract(batch, place, term_type, self.memory.strings) for place, term_type in self.terms]
        flags = np.zeros((batch.num_rows, self.memory.store.columns.flags.shape[1]), np.uint64)
        masks: dict[Expression, NDArray[np.bool_]] = {}
        for stream, index in self.streams.items():
            mask = _evaluate(stream.filter, batch, masks)
            term = self.term_index(stream)
            if term is not None:
                mask = mask & terms[term].present
            word, bit = stream_bit(index)
            flags[:, word] |= mask * bit
        return flags, terms


def _evaluate(
    expression: Expression, batch: EventBatch, masks: dict[Expression, NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Evaluates an expression, each part of a conjunction only once for all that share it."""
    found = masks.get(expression)
    if found is not None:
        return found
    if isinstance(expression, AllOf):
        result = np.ones(batch.num_rows, np.bool_)
        for part in expression.parts:
            result &= _evaluate(part, batch, masks)
    else:
        result = expression.evaluate(batch)
    masks[expression] = result
    return result
