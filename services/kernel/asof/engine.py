"""AsOf: events in, columns of values as of many instants out."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.aggregates.base import Stream, stream_of
from services.kernel.aggregations import Aggregation
from services.kernel.asof.events import Events, OrderedEvents
from services.kernel.asof.families import FAMILIES
from services.kernel.asof.moments import Moments, ranks
from services.kernel.asof.question import Question, Relevant
from services.kernel.column import Column
from services.kernel.columns import EventBatch
from services.kernel.fold import DAY_US


class AsOf:
    """All aggregates of one attribute key, at any (key, instant) pairs. Not thread-safe.

    Events may be added after an answer; the next answer sorts all of them again.
    """

    def __init__(
        self,
        attribute_key: str,
        aggregations: Sequence[Aggregation],
        horizon_us: int = 7 * DAY_US,
        complete_since_us: int | None = None,
    ) -> None:
        self.attribute_key = attribute_key
        self.aggregations = tuple(aggregations)
        self.complete_since_us = complete_since_us
        """The event time before which the log had been trimmed; None: all events were added."""
        self._events = Events(attribute_key, self.aggregations, horizon_us)
        self._ordered: OrderedEvents | None = None

    @property
    def skipped_terms(self) -> int:
        """Values skipped because of their type."""
        return self._events.skipped_terms

    def add(self, batch: EventBatch) -> None:
        """Adds the records of a batch, in log order: ids count once, corrections replace what they correct."""
        self._events.add(batch)
        self._ordered = None

    def sort(self) -> None:
        """Sorts the events now, and not when the first question comes."""
        if self._ordered is None:
            self._ordered = self._events.ordered()

    def codes(self, keys: Sequence[str] | pa.Array) -> NDArray[np.int32]:
        """The codes of key values, -1 for those without an event that counts for anything."""
        array = keys if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys, pa.string())
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if not pa.types.is_dictionary(array.type):
            array = array.cast(pa.string()).dictionary_encode()
        known = np.append(self._events.key_codes.known_codes(array.dictionary.cast(pa.string())), np.int32(-1))
        indices = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        found: NDArray[np.int32] = known[indices]
        return found

    def answer(
        self, keys: Sequence[str] | pa.Array | NDArray[np.int32], instants_us: NDArray[np.int64]
    ) -> list[Column]:
        """The values for each pair of a key and an instant t, one column for each aggregation, in their order.

        Keys are values, or codes that `codes` gave. Windows are `[lower bound at t, t)`. Raises ValueError when there
        are not as many keys as instants, and OverflowError when the lists of a column would hold more than 2^31 - 1
        items: ask for fewer pairs then.
        """
        instants = np.ascontiguousarray(instants_us, np.int64)
        codes = keys.astype(np.int32, copy=False) if isinstance(keys, np.ndarray) else self.codes(keys)
        if len(codes) != len(instants):
            raise ValueError(f"there are {len(codes)} keys and {len(instants)} instants")
        self.sort()
        assert self._ordered is not None, "sorted just now"
        moments = Moments(self._ordered, codes, instants)
        found: dict[Aggregation, Column] = {}
        for question in self._questions(self._ordered, moments):
            found[question.aggregation] = question.column(FAMILIES[question.aggregation.function])
        return [found[aggregation] for aggregation in self.aggregations]

    def _questions(self, events: OrderedEvents, moments: Moments) -> Iterator[Question]:
        """One for each different aggregation; those of a filter and of a stream together, to share and let go."""
        by_filter: dict[Stream, dict[Stream, list[Aggregation]]] = {}
        for aggregation in dict.fromkeys(self.aggregations):
            streams = by_filter.setdefault(Stream(aggregation.filter), {})
            streams.setdefault(stream_of(aggregation), []).append(aggregation)
        for whole, streams in by_filter.items():
            relevant = Relevant(events, moments, whole)
            for stream, aggregations in streams.items():
                rows = events.stream(stream)
                stops = ranks(rows.places, moments.stops)
                for aggregation in aggregations:
                    yield Question(aggregation, events, moments, relevant, rows, stops, self.complete_since_us)
