"""Fills an engine from the log while another one serves, then puts it in place with no gap and no overlap.

The new engine has a fold of its own, which reads the log from the start in a worker thread. The live fold goes on. Once
both have applied exactly the same records, which is checked and acted on in one step of the event loop, the engine
changes owner.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from services.features.projection import Projection
from services.following.erasing import apply
from services.following.feed import Feed, Part, follow_steadily
from services.kernel.aggregations import Aggregation
from services.kernel.engine import Engine
from services.kernel.fold import Fold


@dataclass
class Progress:
    """How far a backfill is."""

    done: int = 0
    total: int = 0
    stage: str = "backfill"
    started: float = 0.0
    """By the monotonic clock, in seconds."""

    @property
    def rate(self) -> float:
        """Records a second."""
        elapsed = time.monotonic() - self.started
        return self.done / elapsed if self.started and elapsed > 0 else 0.0


class Backfill:
    """One engine on its way into a projection."""

    def __init__(
        self,
        feed: Feed,
        project: str,
        projection: Projection,
        attribute_key: str,
        aggregations: Sequence[Aggregation],
        max_bytes: int,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self._feed = feed
        self._project = project
        self._projection = projection
        self._attribute_key = attribute_key
        self._aggregations = aggregations
        self._max_bytes = max_bytes
        self._fold = Fold()
        self._engine: Engine | None = None

    @property
    def position(self) -> int:
        """The position of the last record applied."""
        return self._fold.position

    async def run(self) -> None:
        """Returns once the engine is in the projection. Raises PositionLostError."""
        async with aclosing(follow_steadily(self._feed, self._project, self, self._max_bytes)) as parts:
            async for part in parts:
                self._prepare(part)
                if await self._advance(part):
                    return

    def _prepare(self, part: Part) -> None:
        if self._engine is None:
            assert part.settings is not None, "the first part of a stream carries the settings"
            self._fold = Fold(part.settings.clock, part.settings.horizon_us)
            self._engine = Engine(self._attribute_key, self._aggregations, part.complete_since_us)
            self._fold.attach(self._engine)
        self.progress.total = max(part.head_position, self.progress.total)

    async def _advance(self, part: Part) -> bool:
        """Applies a part; true when that brought the engine into the projection."""
        if 0 < part.last_position <= self._projection.position:
            await asyncio.to_thread(self._apply, part, part.last_position)
        elif part.last_position > self._projection.position:
            # The live fold stands within this part, or before it: up to there, and not further, at once.
            self._apply(part, self._projection.position)
        self.progress.done = self._fold.position
        await self._projection.wait_changeable()
        # From here on nothing yields: the positions cannot change between the comparison and the deed.
        if self._fold.position != self._projection.position or self._engine is None:
            return False
        self.progress.stage = "attach"
        self._projection.adopt(self._engine)
        return True

    def _apply(self, part: Part, until: int) -> None:
        """Applies the records of a part up to and with a position."""
        if until < part.first_position:
            return
        batch = part.batch()
        if batch is not None and until < part.last_position:
            batch = batch.slice(0, until - part.first_position + 1)
        apply(self._fold, self._project, part.first_position, min(until, part.last_position), batch)
