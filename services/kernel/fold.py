"""The fold: a project's log applied, record by record, to the state of its engines.

A fold knows its position in the log and the instant t that its engines hold. It is a pure function of the log and of
the instants given to it; it does no I/O and starts no threads. Its owner follows the log, calls `apply` for each batch
and `advance` as time passes, and writes snapshots.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.kernel.columns import EventBatch
from services.kernel.dedup import ADDED, REPLACED, Deduplicator
from services.kernel.engine import Engine
from services.kernel.windows import MIN_US

ClockKind = Literal["wall", "log", "manual"]
"""wall: t follows the clock and the newest `received_at`; log: the newest `occurred_at`; manual: what it is told."""
DAY_US = 86_400_000_000


class Fold:
    """One project's engines at one position of its log. Not thread-safe."""

    def __init__(self, clock: ClockKind = "wall", horizon_us: int = 7 * DAY_US) -> None:
        self.clock: ClockKind = clock
        self.deduplicator = Deduplicator(horizon_us)
        self.position = 0
        """The position of the last record applied."""
        self.as_of_us = MIN_US
        """The instant t: events before it count."""
        self.events = 0
        """Records applied that took effect."""
        self.engines: list[Engine] = []

    def attach(self, engine: Engine) -> None:
        """Adds an engine that has seen the same log up to the same position."""
        self.engines.append(engine)
        engine.advance(self.as_of_us)

    def detach(self, engine: Engine) -> None:
        """Takes an engine out, with its state."""
        self.engines.remove(engine)

    def apply(self, first_position: int, last_position: int, batch: EventBatch | None) -> None:
        """Applies the records of these positions; those at or before the fold's own are passed over.

        The batch may be None, when a filter by shard left nothing. Raises ValueError when a part that was applied
        cannot be told from a part that was not (a batch filtered by shard that overlaps the position).
        """
        if last_position <= self.position:
            return
        if batch is not None and first_position <= self.position:
            if batch.num_rows != last_position - first_position + 1:
                raise ValueError("a filtered batch overlaps the position")
            batch = batch.slice(self.position - first_position + 1)
        self.position = last_position
        if batch is None or not batch.num_rows:
            return
        resolution = self.deduplicator.resolve(batch)
        self.events += int((resolution.actions != 0).sum())
        self._tick(batch, resolution.actions)
        for engine in self.engines:
            engine.apply(batch, resolution, self.as_of_us, last_position)

    def _tick(self, batch: EventBatch, actions: NDArray[np.int8]) -> None:
        """Moves the instant on by what was applied."""
        if self.clock == "manual":
            return
        comes = (actions == ADDED) | (actions == REPLACED)
        times = batch.received_at if self.clock == "wall" else batch.occurred_at[comes]
        if len(times):
            self.as_of_us = max(self.as_of_us, int(times.max()) + 1)

    def advance(self, now_us: int) -> None:
        """Time has passed: with a wall clock, moves to t = now + 1 us; with another clock does nothing."""
        if self.clock == "wall":
            self.advance_exactly(now_us + 1)

    def advance_exactly(self, t_us: int) -> None:
        """Moves to an instant t, never back: for evaluations at a given instant."""
        if t_us > self.as_of_us:
            self.as_of_us = t_us
            for engine in self.engines:
                engine.advance(t_us)

    def trim(self, before_us: int) -> int:
        """Lets events go from memory that are older and that no value needs; returns how many. See `Engine.trim`."""
        return sum(engine.trim(before_us) for engine in self.engines)

    def touched(self) -> dict[Engine, NDArray[np.int32]]:
        """For each engine the codes of the keys whose values may have changed since the last call."""
        return {engine: engine.touched() for engine in self.engines}

    def next_change_us(self) -> int | None:
        """The next instant t at which time alone changes a value, or None."""
        found = [change for engine in self.engines if (change := engine.next_change_us()) is not None]
        return min(found, default=None)
