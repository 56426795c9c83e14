"""The events of a part: gathered once from their source into the engines that answer."""

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.features.datasets.goals import ANY_EVENT, NEVER, CompiledGoal, conversions
from services.features.datasets.job import FeatureColumn, Job
from services.kernel.aggregations import Aggregation, Function
from services.kernel.asof import AsOf
from services.kernel.columns import EventBatch, key_column
from services.kernel.interning import Interner

Tick = Callable[[int], None]
"""Hears of so many more records read."""
_SINCE_FIRST = Aggregation(Function.TIME_SINCE_FIRST, ANY_EVENT)


class StoppedError(Exception):
    """Somebody asked the computation to end."""


class Watch:
    """How a computation in a thread tells how far it is, and is told to end."""

    def __init__(self) -> None:
        self.records = 0
        self._stop = threading.Event()

    def stop(self) -> None:
        """Asks for the end."""
        self._stop.set()

    def tick(self, records: int) -> None:
        """So many more records were read; raises StoppedError."""
        self.records += records
        if self._stop.is_set():
            raise StoppedError


class PartEvents:
    """Who there is, when they were created and when they reached the goal; and the engine of the features."""

    def __init__(
        self, job: Job, goal: CompiledGoal | None, *, needs_creation: bool, features: Sequence[FeatureColumn]
    ) -> None:
        self._job = job
        self._goal = goal
        self._key = key_column(job.spec.attribute_key)
        self._roster = Interner()
        self._candidates: list[tuple[NDArray[np.int32], NDArray[np.int64]]] = []
        asked: list[Aggregation] = []
        if needs_creation:
            asked.append(job.creation or _SINCE_FIRST)
        if goal is not None:
            asked += goal.aggregations
        self._needs_creation = needs_creation
        since = job.complete_since_us
        self.history = AsOf(job.spec.attribute_key, asked, 0, since) if asked else None
        self.features = AsOf(job.spec.attribute_key, [f.aggregation for f in features], 0, since) if features else None

    @property
    def aggregations(self) -> list[Aggregation]:
        """What the engines look at."""
        engines = [engine for engine in (self.history, self.features) if engine is not None]
        return [aggregation for engine in engines for aggregation in engine.aggregations]

    def load(self, batches: Iterable[EventBatch], tick: Tick) -> None:
        """Takes the records."""
        for batch in batches:
            tick(batch.num_rows)
            self._note(batch)
            for engine in (self.history, self.features):
                if engine is not None:
                    engine.add(batch)

    def _note(self, batch: EventBatch) -> None:
        """Remembers the keys, and the records that could bring the goal about."""
        strings = batch.strings(self._key)
        if strings is None:
            return
        has_key = strings.codes >= 0
        used = np.unique(strings.codes[has_key & ANY_EVENT.evaluate(batch)])
        known = np.full(len(strings.values) + 1, -1, np.int32)
        known[used] = self._roster.codes(strings.values.take(pa.array(used)).cast(pa.string()))
        if self._goal is not None:
            codes = known[strings.codes]
            could = self._goal.filter.evaluate(batch) & (codes >= 0) & (batch.occurred_at <= self._job.as_of_us)
            self._candidates.append((codes[could], batch.occurred_at[could].astype(np.int64)))

    def keys(self) -> list[str]:
        """All keys that have an event, in order."""
        return sorted(self._roster.texts())

    def creation_us(self, keys: pa.Array) -> NDArray[np.int64]:
        """When each key was created, as far as is known by now; NEVER when it is not known."""
        assert self.history is not None, "asked for when it was made"
        codes = self.history.codes(keys)
        end = np.full(len(codes), self._job.as_of_us + 1)
        values = self.history.answer(codes, end)[0].values
        present = values.is_valid().to_numpy(zero_copy_only=False)
        if self._job.creation is not None:
            instants: NDArray[np.int64] = values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            return np.where(present, instants, NEVER)
        first = end - 1 - _microseconds(values)
        # Seconds as a double are exact to the microsecond for short times alone: ask again close by.
        near = np.where(present, first + 1_000, 0)
        first = near - 1 - _microseconds(self.history.answer(codes, near)[0].values)
        return np.where(present, first, NEVER)

    def converted_us(self, keys: pa.Array, creation_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each key reached the goal first; NEVER when it did not by now, or its creation is not known."""
        assert self.history is not None, "asked for when it was made"
        assert self._goal is not None, "asked for when it was made"
        place_of = np.full(len(self._roster) + 1, -1, np.int32)
        ours = self._roster.known_codes(keys)
        place_of[ours[ours >= 0]] = np.flatnonzero(ours >= 0).astype(np.int32)
        who = [place_of[codes] for codes, _ in self._candidates]
        when = [times for _, times in self._candidates]
        places, times = (
            (np.concatenate(who), np.concatenate(when)) if who else (np.empty(0, np.int32), np.empty(0, np.int64))
        )
        wanted = places >= 0
        wanted[wanted] &= creation_us[places[wanted]] != NEVER
        codes = self.history.codes(keys)
        place = int(self._needs_creation)
        return conversions(self._goal, self.history, place, codes, creation_us, (places[wanted], times[wanted]))


def _microseconds(seconds: pa.Array) -> NDArray[np.int64]:
    """Spans in seconds as microseconds; null is 0."""
    numbers = seconds.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    result: NDArray[np.int64] = np.rint(numbers * 1e6).astype(np.int64)
    return result
