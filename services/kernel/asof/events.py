"""The events of one attribute key that count, in their total order."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.aggregates.base import Stream
from services.kernel.aggregations import Aggregation, TermType
from services.kernel.columns import EventBatch
from services.kernel.dedup import ADDED, IGNORED, REPLACED, RETRACTED, Deduplicator
from services.kernel.interning import Interner
from services.kernel.jit import njit
from services.kernel.registry import Registry
from services.kernel.rows import Rows, precedes
from services.kernel.storing import store_events

_SHORT = 32
"""Ties of more rows than this are sorted by a better algorithm than insertion."""


class _Versions(NamedTuple):
    """The records of a batch that have an effect, in log order."""

    id_hashes: NDArray[np.uint64]
    actions: NDArray[np.int8]
    rows: NDArray[np.int32]
    """The row of each, -1 when it has none: no stream asks for it, or it only takes back."""


class Events:
    """Gathers the events of batches; `ordered` gives those that count."""

    def __init__(self, attribute_key: str, aggregations: Sequence[Aggregation], horizon_us: int) -> None:
        self.attribute_key = attribute_key
        self.registry = Registry(aggregations)
        self.key_codes = Interner()
        self.deduplicator = Deduplicator(horizon_us)
        self.skipped_terms = 0
        self._versions: list[_Versions] = []

    def add(self, batch: EventBatch) -> None:
        """Takes the records of a batch, in log order."""
        actions, id_hashes = self.deduplicator.resolve(batch)
        adds = (actions == ADDED) | (actions == REPLACED)
        stored = store_events(self.registry, self.key_codes, self.attribute_key, batch, adds, id_hashes)
        self.skipped_terms += stored.skipped_terms
        rows = np.full(batch.num_rows, -1, np.int32)
        rows[stored.selected] = stored.rows
        effective = actions != IGNORED
        self._versions.append(_Versions(id_hashes[effective], actions[effective], rows[effective]))

    def ordered(self) -> "OrderedEvents":
        """The events that count, sorted."""
        store = self.registry.memory.store
        alive = np.ones(store.count, np.bool_)
        alive[self._superseded()] = False
        return OrderedEvents(self.registry, np.flatnonzero(alive).astype(np.int32), len(self.key_codes))

    def _superseded(self) -> list[int]:
        """The rows that corrections took back: of each id the version that was there when the correction came."""
        if not any((versions.actions > ADDED).any() for versions in self._versions):
            return []
        id_hashes, actions, rows = (np.concatenate(arrays) for arrays in zip(*self._versions, strict=True))
        concerned = np.flatnonzero(np.isin(id_hashes, id_hashes[actions > ADDED]))
        current: dict[int, int] = {}
        gone: list[int] = []
        for i in concerned.tolist():
            id_hash, action = int(id_hashes[i]), int(actions[i])
            if action != ADDED:
                gone.append(current.pop(id_hash, -1))
            if action != RETRACTED:
                current[id_hash] = int(rows[i])
        return [row for row in gone if row >= 0]


class StreamRows(NamedTuple):
    """The events of a stream, in order."""

    places: NDArray[np.int32]
    """Where they are in the order of all events; ascending."""
    terms: NDArray[np.int64] | None
    """Their terms, as `services.kernel.terms` says; None for a stream of events alone."""


class OrderedEvents:
    """Events by (key, time, event id)."""

    def __init__(self, registry: Registry, rows: NDArray[np.int32], keys: int) -> None:
        self._registry = registry
        columns = registry.memory.store.columns
        self.rows = rows[np.lexsort((columns.times[rows], columns.keys[rows]))]
        """The rows of the store."""
        _settle_ties(registry, self.rows)
        self.times: NDArray[np.int64] = columns.times[self.rows]
        self.key_starts: NDArray[np.int64] = np.searchsorted(columns.keys[self.rows], np.arange(keys + 1))
        """The events of key k are those from key_starts[k] to key_starts[k + 1]."""
        self._streams: dict[Stream, StreamRows] = {}

    def stream(self, stream: Stream) -> StreamRows:
        """The events of a stream."""
        found = self._streams.get(stream)
        if found is None:
            bit, term = self._registry.bit(stream), self._registry.term_index(stream)
            store = self._registry.memory.store
            flags = store.columns.flags[self.rows, bit.word]
            places = np.flatnonzero(flags & bit.mask).astype(np.int32)
            terms = None if term is None else store.terms[term][self.rows[places]]
            found = self._streams[stream] = StreamRows(places, terms)
        return found

    def keys_of(self, places: NDArray[np.int32]) -> NDArray[np.int32]:
        """The codes of the keys of events, by their places."""
        codes: NDArray[np.int32] = self._registry.memory.store.columns.keys[self.rows[places]]
        return codes

    @cached_property
    def _texts(self) -> pa.Array:
        """All strings, by code."""
        arrays = self._registry.memory.strings.dump()
        offsets, content = (pa.py_buffer(np.ascontiguousarray(arrays[name])) for name in ("offsets", "content"))
        return pa.LargeStringArray.from_buffers(len(arrays["offsets"]) - 1, offsets, content).cast(pa.string())

    def decode(
        self, terms: NDArray[np.int64], term_type: TermType | None, absent: NDArray[np.bool_] | None = None
    ) -> pa.Array:
        """Terms as Arrow values; where absent, null. Strings are a dictionary, instants int64 microseconds."""
        if term_type is TermType.STRING:
            return pa.DictionaryArray.from_arrays(pa.array(terms.astype(np.int32), mask=absent), self._texts)
        if term_type is TermType.NUMBER:
            return pa.array(terms.view(np.float64), mask=absent)
        if term_type is TermType.BOOLEAN:
            return pa.array(terms != 0, mask=absent)
        return pa.array(terms, mask=absent)


def _settle_ties(registry: Registry, order: NDArray[np.int32]) -> None:
    """Puts rows of one key and one time into the order of their ids."""
    store = registry.memory.store
    columns = store.columns
    same = np.zeros(len(order) + 1, np.bool_)
    same[1:-1] = (columns.times[order[1:]] == columns.times[order[:-1]]) & (
        columns.keys[order[1:]] == columns.keys[order[:-1]]
    )
    if not same.any():
        return
    starts = np.flatnonzero(same[1:] & ~same[:-1])
    stops = np.flatnonzero(same[:-1] & ~same[1:]) + 1
    short = stops - starts <= _SHORT
    _insert_ties(columns, order, starts[short], stops[short])
    for start, stop in zip(starts[~short].tolist(), stops[~short].tolist(), strict=True):
        # The order of texts is that of their bytes in UTF-8.
        order[start:stop] = sorted(order[start:stop].tolist(), key=store.event_id)


@njit
def _insert_ties(columns: Rows, order: NDArray[np.int32], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
    for k in range(len(starts)):
        for i in range(starts[k] + 1, stops[k]):
            moving = order[i]
            j = i
            while j > starts[k] and precedes(columns, moving, order[j - 1]):
                order[j] = order[j - 1]
                j -= 1
            order[j] = moving
