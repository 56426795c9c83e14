"""One project at work: recovers its state, follows its log, fills what is published, writes snapshots.

What goes wrong here stays here: other projects go on, and this one tries again.
"""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from services.features.backfill import Backfill, Progress
from services.features.catalog import Catalog
from services.features.definitions import GroupState
from services.features.projection import Projection
from services.features.property_engines import PropertyEngines
from services.features.settings import FeaturesSettings
from services.features.snapshots import SnapshotShelf
from services.features.store import StoredGroup
from services.following.feed import Backoff, Feed, LogSettings, Part, PositionLostError, follow_steadily
from services.kernel.engine import Engine
from services.kernel.fold import DAY_US, Fold
from services.runtime.clocks import Clock
from services.runtime.errors import Aborted, InklingError, Unavailable

_LOGGER = logging.getLogger(__name__)


@dataclass
class Filling:
    """A published version on its way to being served."""

    name: str
    progress: Progress = field(default_factory=lambda: Progress(started=time.monotonic()))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    error: InklingError | None = None
    task: asyncio.Task[None] | None = None


class Project:
    """One project: its definitions and, once something is published, its projection."""

    def __init__(
        self,
        name: str,
        catalog: Catalog,
        feed: Feed,
        shelf: SnapshotShelf,
        settings: FeaturesSettings,
        clock: Clock,
    ) -> None:
        self.name = name
        self.catalog = catalog
        self.feed = feed
        self.ready = asyncio.Event()
        """Set while all that was published before is served, since the head of the log as it was at the (re)start."""
        self.failures = 0
        """How often it had to start over because of an unexpected error."""
        self.snapshot_time_us = 0
        """When the newest snapshot was written or recovered."""
        self._projection: Projection | None = None
        self._shelf = shelf
        self._settings = settings
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._fillings: dict[str, Filling] = {}
        self._property_engines = PropertyEngines(name, catalog, feed, settings.backfill_bytes, self._check_ready)
        self._goal = 0
        self._snapshot_task: asyncio.Task[None] | None = None
        self._snapshot_position = 0
        self._snapshot_revision = 0
        self._snapshot_due = 0.0

    # For readers.

    @property
    def position(self) -> int:
        """The position of the last record applied."""
        return 0 if self._projection is None else self._projection.position

    @property
    def projection(self) -> Projection | None:
        """The projection, once there is one."""
        return self._projection

    def serving(self) -> Projection:
        """The projection to read from; raises Unavailable while the project recovers."""
        if self._projection is None or not self.ready.is_set():
            raise Unavailable("the project's attributes are being recovered: try again", reason="NOT_READY")
        return self._projection

    # Life.

    def start(self) -> None:
        """Begins to follow the log; does nothing when it does already."""
        if self._task is None:
            self._task = _detached(self._run(), f"project {self.name}")

    async def stop(self) -> None:
        """Ends everything, and writes a last snapshot if there is anything new."""
        fillings = [*(filling.task for filling in self._fillings.values()), *self._property_engines.tasks()]
        for task in (self._task, self._snapshot_task, *fillings):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        self._task = None
        projection = self._projection
        if projection is not None and self._has_news(projection):
            await self._save(projection)

    def tick(self) -> None:
        """Time has passed."""
        if self._projection is not None and self.ready.is_set():
            self._projection.advance()

    async def _run(self) -> None:
        backoff = Backoff()
        fold: Fold | None = None
        recover = True
        while True:
            try:
                if recover:
                    fold = await self._shelf.newest()
                await self._follow(fold)
            except PositionLostError as error:
                # The log begins later than we stood, or is another one: only the log itself can tell.
                await self._shelf.clear()
                fold, recover = None, False
                await backoff.wait("starting over from the log", self.name, error)
            except Exception as error:
                _LOGGER.exception("the projection failed", extra={"fields": {"project": self.name}})
                fold, recover = None, True
                self.failures += 1
                await backoff.wait("recovering", self.name, error)

    async def _follow(self, fold: Fold | None) -> None:
        self.ready.clear()
        if self._projection is not None:
            self._projection.close()
            self._projection = None
        standing = _Standing(fold)
        async with aclosing(follow_steadily(self.feed, self.name, standing, self._settings.apply_bytes)) as parts:
            async for part in parts:
                projection = self._projection
                if projection is None:
                    projection = self._begin(fold, part)
                    standing.fold = projection.fold
                elif part.settings is not None:
                    _obey(part.settings, projection.fold)
                projection.head_position = max(part.head_position, projection.head_position)
                if part.last_position:
                    await projection.wait_changeable()
                    projection.apply(part.first_position, part.last_position, part.batch())
                self._check_ready(projection)
                self._consider_snapshot(projection)
                # Readers get their turn, also when the next part is here already.
                await asyncio.sleep(0)

    def _begin(self, fold: Fold | None, part: Part) -> Projection:
        """The first part of the stream is here: makes the projection, and begins to fill what it lacks."""
        assert part.settings is not None, "the first part of a stream carries the settings"
        if fold is None or fold.clock != part.settings.clock:
            fold = Fold(part.settings.clock, part.settings.horizon_us)
        _obey(part.settings, fold)
        projection = self._projection = Projection(fold, self._clock, self.name)
        self._goal = projection.head_position = part.head_position
        self._snapshot_position = fold.position
        self._snapshot_due = time.monotonic() + self._settings.snapshot_seconds
        self.snapshot_time_us = self._clock.now_us() if fold.position else 0
        published = self.catalog.published
        projection.release(self.catalog.needed)
        self._snapshot_revision = projection.revision
        for stored in published:
            missing = projection.missing(stored.group)
            if missing and fold.position == 0:
                # Nothing is applied yet: the engine sees the log from its start together with the others.
                projection.adopt(Engine(stored.group.attribute_key, missing, part.complete_since_us))
                missing = []
            if missing or stored.state is GroupState.BACKFILLING:
                self.fill(stored)
        self._property_engines.begin(projection, part.complete_since_us)
        return projection

    def _check_ready(self, projection: Projection) -> None:
        if self.ready.is_set() or projection.position < self._goal:
            return
        for stored in self.catalog.published:
            if stored.state is GroupState.SERVING and projection.missing(stored.group):
                return
        if not self._property_engines.complete(projection):
            return
        _LOGGER.info("ready", extra={"fields": {"project": self.name, "position": projection.position}})
        self.ready.set()

    # Properties.

    async def declared(self) -> None:
        """Properties were declared: sees to it that they are computed from here on."""
        self.start()
        if self._projection is not None:
            await self._projection.wait_changeable()
            self._property_engines.declared(self._projection)

    async def undeclared(self) -> None:
        """Properties were deleted: lets their state go."""
        if self._projection is not None:
            await self._projection.wait_changeable()
            self._property_engines.stop_unneeded()
            self._projection.release(self.catalog.needed)

    # Publishing.

    def fill(self, stored: StoredGroup) -> Filling:
        """Sees to it that a published version becomes served; the same version is filled once at a time."""
        name = stored.group.name
        filling = self._fillings.get(name)
        if filling is None:
            filling = self._fillings[name] = Filling(name)
        if filling.task is not None:
            filling.task.cancel()
        self.start()
        if self._projection is not None:
            filling.task = _detached(self._fill(filling, self._projection), f"fill {name}")
        return filling

    def filling(self, name: str) -> Filling | None:
        """The filling of a version, while it goes on."""
        return self._fillings.get(name)

    async def _fill(self, filling: Filling, projection: Projection) -> None:
        backoff = Backoff()
        while True:
            try:
                stored = self.catalog.group(filling.name)
                missing = projection.missing(stored.group)
                if missing:
                    key = stored.group.attribute_key
                    backfill = Backfill(
                        self.feed, self.name, projection, key, missing, self._settings.backfill_bytes, filling.progress
                    )
                    await backfill.run()
                else:
                    await self._catch_up(filling.progress, projection)
                self._check_ready(projection)
                if self.catalog.group(filling.name).state is GroupState.BACKFILLING:
                    await self.catalog.set_state(filling.name, GroupState.SERVING)
                projection.announce()
                self._end(filling)
                return
            except Exception as error:
                _LOGGER.exception("filling failed", extra={"fields": {"project": self.name, "group": filling.name}})
                await backoff.wait("filling again", self.name, error)

    async def _catch_up(self, progress: Progress, projection: Projection) -> None:
        """Waits until the projection, which has all it needs, stands where the log stood."""
        progress.total = projection.head_position
        while projection.position < progress.total:
            progress.done = projection.position
            with contextlib.suppress(InklingError):
                await projection.wait_for(progress.total, 0.25)
        progress.done = progress.total

    async def abandon(self, name: str) -> None:
        """Stops filling a version that is not to be served any more, and lets its state go."""
        filling = self._fillings.get(name)
        if filling is not None:
            if filling.task is not None:
                filling.task.cancel()
            self._end(filling, Aborted(f"{name} is not to be published any more", reason="DELETED"))
        if self._projection is not None:
            await self._projection.wait_changeable()
            self._projection.release(self.catalog.needed)

    def _end(self, filling: Filling, error: InklingError | None = None) -> None:
        filling.error = error
        filling.ended.set()
        self._fillings.pop(filling.name, None)

    # Snapshots.

    def _consider_snapshot(self, projection: Projection) -> None:
        running = self._snapshot_task is not None and not self._snapshot_task.done()
        if running or not self._has_news(projection):
            return
        many = projection.position - self._snapshot_position >= self._settings.snapshot_events
        if many or time.monotonic() >= self._snapshot_due:
            self._snapshot_task = _detached(self._save(projection), f"snapshot {self.name}")

    def _has_news(self, projection: Projection) -> bool:
        """Whether a snapshot would hold more than the newest one: records, or engines."""
        held = (self._snapshot_position, self._snapshot_revision)
        return (
            projection.position > 0
            and bool(projection.fold.engines)
            and (projection.position, projection.revision) != held
        )

    async def renew_snapshots(self, position: int) -> int:
        """Sees to it that no snapshot is of an earlier position than this one, which is applied; returns how many were.

        Raises Unavailable when a snapshot cannot be written now.
        """
        while self._snapshot_task is not None and not self._snapshot_task.done():
            await asyncio.wait([self._snapshot_task])
        projection = self._projection
        if projection is not None and self._has_news(projection):
            self._snapshot_task = _detached(self._save(projection), f"snapshot {self.name}")
            await asyncio.wait([self._snapshot_task])
            if self._has_news(projection) and self._snapshot_position < position:
                raise Unavailable("a snapshot cannot be written now", reason="NOT_READY")
        return await self._shelf.drop_before(position)

    async def _save(self, projection: Projection) -> None:
        now_us, revision = self._clock.now_us(), projection.revision
        try:
            self._snapshot_position = await self._shelf.save(projection)
            self._snapshot_revision, self.snapshot_time_us = revision, now_us
            projection.fold.trim(projection.fold.as_of_us - round(self._settings.memory_days * DAY_US))
        except Exception:
            _LOGGER.exception("a snapshot could not be written", extra={"fields": {"project": self.name}})
        self._snapshot_due = time.monotonic() + self._settings.snapshot_seconds


def _detached(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task that has nothing of the call that happens to start it."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())


class _Standing:
    """Where to go on following: the position of the fold, once there is one."""

    def __init__(self, fold: Fold | None) -> None:
        self.fold = fold

    @property
    def position(self) -> int:
        return 0 if self.fold is None else self.fold.position


def _obey(settings: LogSettings, fold: Fold) -> None:
    """Takes on settings that may change; the clock may only while the log is empty."""
    if settings.clock != fold.clock:
        raise PositionLostError("the project's clock was changed")
    fold.deduplicator.horizon_us = settings.horizon_us
