"""All projects that this process serves."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.features.catalog import Catalog
from services.features.project import Project
from services.features.property_store import PropertyStore
from services.features.settings import FeaturesSettings
from services.features.snapshots import SnapshotShelf
from services.features.store import DefinitionStore
from services.following.feed import Feed
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock

_LOGGER = logging.getLogger(__name__)


class Projects:
    """Opens projects when they are first asked for, and keeps them."""

    def __init__(
        self, store: DefinitionStore, feed: Feed, blobs: BlobStore, settings: FeaturesSettings, clock: Clock
    ) -> None:
        self.closing = False
        """Set before anything stops: work that ends now is to be resumed, not undone."""
        self._store = store
        self._feed = feed
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._projects: dict[str, Project] = {}
        self._opening = asyncio.Lock()
        self._opened = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Projects"]:
        """Starts the projects that have published groups or properties; on exit stops all of them."""
        with_properties = await PropertyStore(self._store.database).projects()
        for name in sorted({*await self._store.published_projects(), *with_properties}):
            (await self._load(name)).start()
        self._opened.set()
        ticking = asyncio.create_task(self._tick(), name="ticks")
        try:
            yield self
        finally:
            self.closing = True
            ticking.cancel()
            await asyncio.gather(*(project.stop() for project in self._projects.values()), return_exceptions=True)

    async def wait_ready(self) -> None:
        """Returns once every project with definitions has caught up with the head seen at the start."""
        await self._opened.wait()
        started = [project for project in self._projects.values() if project.catalog.needed]
        await asyncio.gather(*(project.ready.wait() for project in started))

    def opened(self) -> list[Project]:
        """The projects that were asked for so far."""
        return list(self._projects.values())

    def find(self, name: str) -> Project | None:
        """A project that is open already."""
        return self._projects.get(name)

    async def get(self, name: str) -> Project:
        """A project; one that nobody defined anything in is empty."""
        return self._projects.get(name) or await self._load(name)

    async def wait_opened(self) -> None:
        """Returns once the projects of the store are loaded."""
        await self._opened.wait()

    async def _load(self, name: str) -> Project:
        async with self._opening:
            project = self._projects.get(name)
            if project is None:
                catalog = await Catalog.load(name, self._store, self._clock)
                shelf = SnapshotShelf(self._blobs, name)
                project = Project(name, catalog, self._feed, shelf, self._settings, self._clock)
                self._projects[name] = project
            return project

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_seconds)
            for project in self.opened():
                try:
                    project.tick()
                except Exception:
                    _LOGGER.exception("a tick failed", extra={"fields": {"project": project.name}})
