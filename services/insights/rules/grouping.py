"""The events of a batch that rules count, by user: found once for all rules that count the same."""

from itertools import repeat
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.insights.rules.compile import CompiledRule
from services.insights.rules.tally import Event
from services.kernel.columns import EventBatch, Strings, key_column
from services.kernel.dedup import ADDED, IGNORED, RETRACTED
from services.kernel.expressions import Expression

Rows = NDArray[np.int64]


class Group(NamedTuple):
    """Events that a rule counts, each user's together, in the order of the log."""

    rows: Rows
    events: list[Event]
    instants_us: list[int]
    """The instant t at each."""
    users: list[str]
    """One for each run of events."""
    bounds: list[int]
    """Where the runs begin, and where the last ends."""
    plain: list[bool]
    """Whether a run holds only new events, one after the other in their own time too, whose time has come."""
    rejected: int
    """Events that cannot be counted: their metric is no number, or nobody said which of several it is."""


class Grouper:
    """Groups one batch."""

    def __init__(self, batch: EventBatch, actions: NDArray[np.int8], instants_us: NDArray[np.int64]) -> None:
        self._batch, self._actions, self._instants_us = batch, actions, instants_us
        self._comes = (actions != IGNORED) & (actions != RETRACTED)
        self._times = batch.occurred_at
        self._ids: NDArray[np.object_] | None = None
        self._known: dict[tuple[Expression, str | None, str], Group | None] = {}
        self._keys: dict[str, tuple[Strings, NDArray[np.object_]] | None] = {}

    @property
    def ids(self) -> NDArray[np.object_]:
        """The ids of all records, as texts."""
        if self._ids is None:
            self._ids = _texts(self._batch.record_batch.column("event_id"))
        return self._ids

    def names(self) -> set[str]:
        """The names of the types of events that come."""
        types = self._batch.strings("event_type")
        if types is None:
            return set()
        return {types.values[int(code)].as_py().split("/")[1] for code in np.unique(types.codes[self._comes])}

    def group(self, compiled: CompiledRule) -> Group | None:
        """What a rule counts, or cannot count; None when that is nothing."""
        rule = compiled.rule
        what = (compiled.expression, rule.sum.metric if rule.sum else None, rule.user_key)
        if what not in self._known:
            self._known[what] = self._make(compiled)
        return self._known[what]

    def _users(self, user_key: str) -> tuple[Strings, NDArray[np.object_]] | None:
        if user_key not in self._keys:
            strings = self._batch.strings(key_column(user_key))
            self._keys[user_key] = None if strings is None else (strings, _texts(strings.values))
        return self._keys[user_key]

    def _make(self, compiled: CompiledRule) -> Group | None:
        counted, users = compiled.counted(self._batch), self._users(compiled.rule.user_key)
        rejected = int((self._actions[counted.rejected] != IGNORED).sum())
        if users is None or not len(counted.rows):
            return Group(counted.rows[:0], [], [], [], [0], [], rejected) if rejected else None
        codes = users[0].codes[counted.rows]
        mine = np.flatnonzero(self._comes[counted.rows] & (codes >= 0))
        mine = mine[np.argsort(codes[mine], kind="stable")]
        rows, codes = counted.rows[mine], codes[mine]
        times, instants = self._times[rows], self._instants_us[rows]
        numbers = None if counted.numbers is None else [counted.numbers[i] for i in mine.tolist()]
        events: list[Event] = list(zip(times.tolist(), self.ids[rows].tolist(), numbers or repeat(None)))  # noqa: B905
        begins = np.ones(len(rows), np.bool_)
        begins[1:] = codes[1:] != codes[:-1]
        starts = np.flatnonzero(begins)
        plain = (self._actions[rows] == ADDED) & (times < instants)
        plain[1:] &= begins[1:] | (times[1:] > times[:-1])
        return Group(
            rows,
            events,
            instants.tolist(),
            users[1][codes[starts]].tolist(),
            [*starts.tolist(), len(rows)],
            np.logical_and.reduceat(plain, starts).tolist() if len(starts) else [],
            rejected,
        )


def _texts(array: pa.Array) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = array.to_numpy(zero_copy_only=False)
    return texts
