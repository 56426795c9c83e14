"""All projects that this process serves."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.following.feed import Feed
from services.insights.catalog import Catalog
from services.insights.evaluators import EvaluatorMaker
from services.insights.project import Project
from services.insights.settings import InsightsSettings
from services.insights.snapshots import SnapshotShelf
from services.insights.sources import SourceReader
from services.insights.store import InsightStore
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.journal import ChangeJournal

_LOGGER = logging.getLogger(__name__)


class Projects:
    """Opens projects when they are first asked for, and keeps them."""

    def __init__(
        self,
        store: InsightStore,
        feed: Feed,
        sources: SourceReader,
        blobs: BlobStore,
        journal: ChangeJournal,
        settings: InsightsSettings,
        clock: Clock,
        others: tuple[EvaluatorMaker, ...] = (),
    ) -> None:
        self._store, self._feed, self._sources, self._blobs = store, feed, sources, blobs
        self._journal, self._settings, self._clock, self._others = journal, settings, clock, others
        self._projects: dict[str, Project] = {}
        self._opening = asyncio.Lock()
        self._opened = asyncio.Event()
        self._started: list[Project] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Projects"]:
        """Starts the projects that have insights; on exit stops all of them."""
        starting = asyncio.create_task(self._start(), name="starting")
        ticking = asyncio.create_task(self._tick(), name="ticks")
        try:
            yield self
        finally:
            starting.cancel()
            ticking.cancel()
            await asyncio.gather(starting, ticking, return_exceptions=True)
            await asyncio.gather(*(project.stop() for project in self._projects.values()), return_exceptions=True)

    async def wait_ready(self) -> None:
        """Returns once every project with insights has caught up with the head seen at the start."""
        await self._opened.wait()
        await asyncio.gather(*(project.ready.wait() for project in self._started))

    def opened(self) -> list[Project]:
        """The projects that were asked for so far."""
        return list(self._projects.values())

    async def get(self, name: str) -> Project:
        """A project; one that nobody defined anything in is empty. Raises Unavailable."""
        return self._projects.get(name) or await self._load(name)

    async def _start(self) -> None:
        for name in await self._store.projects():
            while True:
                try:
                    project = await self._load(name)
                except Exception:
                    _LOGGER.exception("a project cannot be opened", extra={"fields": {"project": name}})
                    await asyncio.sleep(1.0)
                    continue
                break
            project.start()
            self._started.append(project)
        self._opened.set()

    async def _load(self, name: str) -> Project:
        async with self._opening:
            project = self._projects.get(name)
            if project is None:
                unbounded = self._settings.unbounded_is_error
                catalog = Catalog(name, self._store, self._sources, self._clock, unbounded_is_error=unbounded)
                await catalog.load()
                shelf = SnapshotShelf(self._blobs, name)
                project = Project(
                    name, catalog, self._feed, shelf, self._journal, self._settings, self._clock, self._others
                )
                self._projects[name] = project
            return project

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_seconds)
            for project in self.opened():
                try:
                    await project.tick()
                except Exception:
                    _LOGGER.exception("a tick failed", extra={"fields": {"project": project.name}})
