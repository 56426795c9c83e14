"""The engine: all aggregates over one attribute key, kept current as events come and as time passes.

Each event that concerns an aggregate is one row (`rows`), listed under its key (`timelines`) and by time (`timeorder`).
The engine holds one instant `t`; the rows before it are inside. When `t` moves on, the rows that come inside and those
that fall behind the start of a window are slices of the order of time; they are handed to the states (`aggregates`),
which add them or take them away. So values are exact at any instant, at a cost that does not depend on the length of a
window.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.kernel import timers
from services.kernel.aggregates.base import Bounds
from services.kernel.aggregations import Aggregation
from services.kernel.column import Column
from services.kernel.columns import EventBatch
from services.kernel.dedup import ADDED, REPLACED, RETRACTED, Resolution
from services.kernel.forgetting import forget_unused_texts
from services.kernel.gathering import Gatherer
from services.kernel.interning import FORGOTTEN, Interner
from services.kernel.readings import Answers, Reading, Status
from services.kernel.registry import Registry
from services.kernel.rows import grown
from services.kernel.sessions import settle_sessions
from services.kernel.storing import store_events
from services.kernel.timeorder import TimeOrder
from services.kernel.windows import MIN_US, Lifetime

__all__ = ["Engine", "Reading", "Status"]


class Engine:
    """The aggregates of one attribute key over one project's events."""

    def __init__(
        self, attribute_key: str, aggregations: Sequence[Aggregation], complete_since_us: int | None = None
    ) -> None:
        self.attribute_key = attribute_key
        self.aggregations = tuple(aggregations)
        self.complete_since_us = complete_since_us
        """The event time before which the log had been trimmed when this engine began; None: it saw everything."""
        self.skipped_terms = 0
        """Values skipped because of their type."""
        self.key_codes = Interner()
        self.registry = Registry(self.aggregations)
        self.memory = self.registry.memory
        self._answers = Answers(self.aggregations, self.registry, complete_since_us)
        self._gatherer = Gatherer(self.aggregations, self.registry, self._answers)
        self._index = {aggregation: i for i, aggregation in reversed(list(enumerate(self.aggregations)))}
        self._order = TimeOrder()
        self._row_index: dict[int, int] | None = None
        self._touched: list[NDArray[np.int32]] = []
        self._changed: NDArray[np.int64] = np.zeros(0, np.int64)

    def apply(self, batch: EventBatch, resolution: Resolution, t_us: int, position: int) -> None:
        """Applies the records of a batch that take effect, then moves to the instant `t_us`, never back.

        `position` is that of the last record in the log: keys touched remember it.
        """
        actions, hashes = resolution
        adds = (actions == ADDED) | (actions == REPLACED)
        if len(actions) and actions.max() > ADDED:
            adds &= ~self._retract_versions(actions, hashes, position)
        new = self._append(batch, adds, hashes)
        self.advance(t_us, new, position)

    def _append(self, batch: EventBatch, adds: NDArray[np.bool_], hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Stores the events that concern any stream; returns their rows."""
        stored = store_events(self.registry, self.key_codes, self.attribute_key, batch, adds, hashes)
        rows, selected = stored.rows, stored.selected
        if not len(rows):
            return rows
        self._reserve_keys()
        self.skipped_terms += stored.skipped_terms
        self.memory.timelines.insert(self.memory.store.columns, rows)
        if self._row_index is not None:
            self._row_index.update(zip(hashes[selected].tolist(), rows.tolist(), strict=True))
        return rows

    def _reserve_keys(self) -> None:
        count = len(self.key_codes)
        self.registry.reserve_keys(count)
        if count > len(self._changed):
            self._changed = grown(self._changed, max(count, 2 * len(self._changed)))

    # Corrections.

    def _retract_versions(
        self, actions: NDArray[np.int8], hashes: NDArray[np.uint64], position: int
    ) -> NDArray[np.bool_]:
        """Takes back the versions that corrections supersede; marks those that came earlier in this very batch."""
        superseded = np.zeros(len(actions), np.bool_)
        corrections = np.flatnonzero((actions == REPLACED) | (actions == RETRACTED))
        concerned = np.flatnonzero(np.isin(hashes, hashes[corrections]) & (actions > 0))
        latest: dict[int, int] = {}
        index = self._rows_by_hash()
        rows: list[int] = []
        for i in concerned.tolist():
            id_hash = int(hashes[i])
            if actions[i] != ADDED:
                if id_hash in latest:
                    superseded[latest[id_hash]] = True
                elif id_hash in index:
                    rows.append(index.pop(id_hash))
            if actions[i] != RETRACTED:
                latest[id_hash] = i
        if rows:
            self._retract(np.array(sorted(rows), np.int32), position)
        return superseded

    def _rows_by_hash(self) -> dict[int, int]:
        """From an id's hash to its row: built when the first correction comes, and kept from then on."""
        if self._row_index is None:
            store = self.memory.store
            alive = np.flatnonzero(store.columns.flags[: store.count].any(axis=1))
            self._row_index = dict(zip(store.columns.id_hashes[alive].tolist(), alive.tolist(), strict=True))
        return self._row_index

    def _retract(self, rows: NDArray[np.int32], position: int) -> None:
        """Undoes rows: out of the windows, out of the timelines, and out of what is known of their streams."""
        memory = self.memory
        columns = memory.store.columns
        times, keys = columns.times[rows], columns.keys[rows]
        self._note(keys, position)
        inside = rows[times < memory.now_us]
        for windowed in self.registry.windows:
            windowed.leave(self._within(windowed.bounds, inside))
        flags = columns.flags[rows].copy()
        memory.timelines.remove(columns, rows)
        columns.flags[rows] = 0
        for state in self.registry.states:
            state.forget(rows, (flags[:, state.bit.word] & state.bit.mask) != 0)
        # A run of events may have lost its bridge.
        self._settle_sessions(np.empty(0, np.int32), np.unique(keys))

    # Time.

    def advance(self, t_us: int, new: NDArray[np.int32] | None = None, position: int = 0) -> None:
        """Moves to the instant `t_us`, never back, with rows that were just stored."""
        memory = self.memory
        before, now = memory.now_us, max(t_us, memory.now_us)
        columns = memory.store.columns
        entering = self._order.between(before, now).copy()
        memory.now_us = now
        for bounds in self.registry.all_bounds:
            if bounds.ttl_us is None:
                self._move(bounds, before)
            elif now > before:
                # What may expire now: events that a ttl has just gone by since.
                self._note(columns.keys[self._order.between(before - bounds.ttl_us, now - bounds.ttl_us)])
        if new is not None and len(new):
            times = columns.times[new]
            self._order.add(times, new)
            entering = np.concatenate([entering, new[times < memory.now_us]])
            self._note(columns.keys[new], position)
        if len(entering):
            self._note(columns.keys[entering])
            self._enter(entering)

    def _move(self, bounds: Bounds, before_us: int) -> None:
        """Moves the start of a window; what was inside and is behind it leaves."""
        lower = max(bounds.window.lower_bound_us(self.memory.now_us), bounds.lower_us)
        leaving = self._order.between(bounds.lower_us, min(lower, before_us))
        bounds.lower_us = lower
        if not len(leaving):
            return
        for state in self.registry.windows:
            if state.bounds is bounds:
                state.leave(leaving)
        self._note(self.memory.store.columns.keys[leaving])

    def _enter(self, rows: NDArray[np.int32]) -> None:
        """Rows come inside."""
        for stream_state in self.registry.whole:
            stream_state.enter(rows)
        self._settle_sessions(rows, None)
        times = self.memory.store.columns.times[rows]
        inside: dict[int, NDArray[np.int32]] = {}
        for windowed in self.registry.windows:
            bounds = windowed.bounds
            if bounds.ttl_us is None:
                if bounds.lower_us not in inside:
                    inside[bounds.lower_us] = rows[times >= bounds.lower_us]
                windowed.enter(inside[bounds.lower_us])

    def _settle_sessions(self, rows: NDArray[np.int32], keys: NDArray[np.int32] | None) -> None:
        """Moves the starts of the windows with a ttl, for rows that came inside or for keys that lost one."""
        memory = self.memory
        for bounds in self.registry.all_bounds:
            if bounds.ttl_us is None:
                continue
            bit = self.registry.bit(bounds.stream)
            leaving, entering = settle_sessions(
                memory, bounds.session_starts, bit, bounds.ttl_us, rows, keys if keys is not None else rows[:0]
            )
            for state in self.registry.windows:
                if state.bounds is bounds:
                    state.leave(leaving)
                    state.enter(entering)

    def _within(self, bounds: Bounds, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        columns = self.memory.store.columns
        lower = bounds.lower_us if bounds.ttl_us is None else bounds.session_starts[columns.keys[rows]]
        return rows[columns.times[rows] >= lower]

    def next_change_us(self) -> int | None:
        """The next instant t at which time alone changes a value, or None. Not counted: the time_since functions."""
        return timers.next_change_us(self.memory, self.registry.all_bounds, self._order)

    # Who changed.

    def _note(self, keys: NDArray[np.int32], position: int = 0) -> None:
        if not len(keys):
            return
        if position:
            self._changed[keys] = position
        self._touched.append(keys)
        # Nobody may ask for long: then hold each key once.
        if len(self._touched) > 256:
            self._touched = [np.unique(np.concatenate(self._touched))]

    def touched(self) -> NDArray[np.int32]:
        """The keys whose values may have changed since the last call, by events or by time."""
        if not self._touched:
            return np.empty(0, np.int32)
        keys = np.unique(np.concatenate(self._touched))
        self._touched = []
        return keys

    def changed_since(self, position: int, t_us: int) -> NDArray[np.int32]:
        """The keys whose values may have changed since the state had this position and instant."""
        found = [np.flatnonzero(self._changed[: len(self.key_codes)] > position).astype(np.int32)]
        if t_us < self.memory.now_us:
            found += timers.keys_moved_since(self.memory, self.registry.all_bounds, self._order, t_us)
        return np.unique(np.concatenate(found))

    # Answers.

    def keys(self) -> list[str]:
        """The key values that any relevant event has named, but for forgotten ones."""
        return [text for text in self.key_codes.texts() if not text.startswith(FORGOTTEN)]

    def key_of(self, code: int) -> str:
        """The key value of a code."""
        return self.key_codes.text(code)

    def index_of(self, aggregation: Aggregation) -> int | None:
        """The place of an aggregation in the readings, or None."""
        return self._index.get(aggregation)

    def read(self, key: str) -> list[Reading]:
        """The readings of one key, in the order of the aggregations."""
        code = self.key_codes.find(key)
        return [self.reading(i, code) for i in range(len(self.aggregations))]

    def read_many(self, keys: Sequence[str]) -> list[list[Reading]]:
        """The readings of several keys."""
        return [self.read(key) for key in keys]

    def reading(self, index: int, code: int | None) -> Reading:
        """The reading of one aggregation, by its place, for the key of a code; None is a key never seen."""
        return self._answers.reading(index, code)

    def column(self, index: int, codes: NDArray[np.int32] | None = None) -> Column:
        """The readings of one aggregation, by its place, for the keys of some codes (-1: never seen), or of all."""
        if codes is None:
            codes = np.arange(len(self.key_codes), dtype=np.int32)
        return self._gatherer.column(index, codes)

    # Memory.

    @property
    def rows(self) -> int:
        """How many events are held."""
        return self.memory.store.count

    @property
    def nbytes(self) -> int:
        """Memory held in arrays, in bytes; the texts of keys and terms are not counted."""
        states = sum(array.nbytes for state in self.registry.states for array in state.dump().values())
        return self.memory.store.nbytes + self.memory.timelines.nbytes + self._order.nbytes + states

    def trim(self, before_us: int) -> int:
        """Drops rows of events earlier than `before_us` that nothing can need any more; returns how many.

        Rows that a window may still lose or a lifetime refers to are kept, as are all when an aggregation has a ttl.
        Values do not change, also by events that come late; but corrections of dropped events have no effect any more.
        It takes as long as a restart's sorting does, so nothing is done for less than a quarter of the rows.
        """
        if any(bounds.ttl_us is not None for bounds in self.registry.all_bounds):
            return 0
        # What waits for its time to come is needed whatever the caller says.
        before_us = min(before_us, self.memory.now_us)
        for bounds in self.registry.all_bounds:
            if not isinstance(bounds.window, Lifetime):
                before_us = min(before_us, bounds.lower_us)
        store = self.memory.store
        kept = store.columns.times[: store.count] >= before_us
        for state in self.registry.states:
            referenced = state.referenced()
            if referenced is not None:
                kept[referenced[referenced >= 0]] = True
        dropped = store.count - int(kept.sum())
        if dropped * 4 < store.count or not dropped:
            return 0
        self._keep(kept)
        return dropped

    def forget_key(self, value: str) -> bool:
        """Leaves nothing of a key: neither its values nor its text, nor texts that only its events had.

        What comes for the same value afterwards is a new key. Returns whether the key was known. It takes as long as a
        restart's sorting does.
        """
        code = self.key_codes.find(value)
        if code is None:
            return False
        rows = self.memory.timelines.rows_of(code).copy()
        self._retract(rows, 0)
        # Rows that were trimmed away could not be retracted.
        for state in self.registry.states:
            state.forget_key(code)
        for bounds in self.registry.all_bounds:
            if bounds.ttl_us is not None:
                bounds.session_starts[code] = MIN_US
        self.key_codes.forget(np.arange(len(self.key_codes)) == code)
        # Nobody who asks what changed is given a code without a text.
        self._changed[code] = 0
        self.forget_retracted()
        return True

    def forget_retracted(self) -> None:
        """Leaves nothing of events that were taken back: neither their rows nor texts that only they had.

        It takes as long as a restart's sorting does.
        """
        store = self.memory.store
        self._keep(np.asarray(store.columns.flags[: store.count].any(axis=1)))
        forget_unused_texts(self.registry)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        """Drops all rows but those marked."""
        numbers = self.memory.store.keep(kept)
        for state in self.registry.states:
            state.renumber(numbers)
        self._restore_order()
        self._row_index = None

    def _restore_order(self) -> None:
        """Makes the timelines and the order of time anew from the rows."""
        store = self.memory.store
        columns = store.columns
        alive = np.flatnonzero(columns.flags[: store.count].any(axis=1)).astype(np.int32)
        self.memory.timelines.rebuild(columns, alive, len(self.key_codes))
        self._order = TimeOrder()
        self._order.add(columns.times[alive], alive)

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The state as named arrays, for a snapshot."""
        arrays = {f"rows.{name}": array for name, array in self.memory.store.dump().items()}
        arrays |= {f"keys.{name}": array for name, array in self.key_codes.dump().items()}
        arrays |= {f"strings.{name}": array for name, array in self.memory.strings.dump().items()}
        for i, state in enumerate(self.registry.states):
            arrays |= {f"state{i}.{name}": array for name, array in state.dump().items()}
        for i, bounds in enumerate(self.registry.all_bounds):
            arrays |= {f"bounds{i}.starts": bounds.session_starts, f"bounds{i}.lower": np.array([bounds.lower_us])}
        arrays["changed"] = self._changed
        arrays["counters"] = np.array([self.memory.now_us, self.skipped_terms], np.int64)
        return arrays

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Takes the state back; the aggregations must be those of the dump, in its order."""

        def named(prefix: str) -> dict[str, NDArray[np.generic]]:
            return {name[len(prefix) + 1 :]: a for name, a in arrays.items() if name.startswith(f"{prefix}.")}

        self.memory.store.load(named("rows"))
        self.key_codes.load(named("keys"))
        self.memory.strings.load(named("strings"))
        for i, state in enumerate(self.registry.states):
            state.load(named(f"state{i}"))
        for i, bounds in enumerate(self.registry.all_bounds):
            bounds.session_starts = np.array(arrays[f"bounds{i}.starts"])
            bounds.lower_us = int(arrays[f"bounds{i}.lower"].tolist()[0])
        self._changed = np.array(arrays["changed"])
        self.memory.now_us, self.skipped_terms = (int(value) for value in arrays["counters"].tolist())
        self._restore_order()
        self._reserve_keys()
