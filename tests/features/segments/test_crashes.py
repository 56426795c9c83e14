"""Killed at any point, each change of membership is told once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from services.features.projects import Projects
from services.features.segments.definitions import SegmentDefinition
from services.features.segments.service import ProjectSegments, Segments
from services.features.segments.store import MIGRATIONS as SEGMENT_MIGRATIONS
from services.features.segments.store import SegmentStore
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore, Request
from services.runtime import journal, operations
from services.runtime.blobs import MemoryBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists
from services.runtime.journal import Change, ChangeJournal, JournalStore
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.test_project import DAY_US, group, publish

NAME = "segments/buyers"


class KilledError(Exception):
    """The process is dead."""


class Fate:
    """Kills a process before or after its n-th durable step; a dead process can do nothing durable."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.dead = asyncio.Event()

    def step(self) -> None:
        """Half a step."""
        if self.left <= 0:
            self.dead.set()
        if self.dead.is_set():
            raise KilledError
        self.left -= 1


class MortalJournal(JournalStore):
    """Dies before or after it wrote."""

    fate: Fate

    async def append(self, project: str, changes: Sequence[Change], now_us: int) -> int:
        self.fate.step()
        last = await super().append(project, changes, now_us)
        self.fate.step()
        return last


class MortalSegments(SegmentStore):
    """Dies before or after it wrote."""

    fate: Fate

    async def add(self, project: str, definition: SegmentDefinition, request: Request | None) -> None:
        self.fate.step()
        await super().add(project, definition, request)
        self.fate.step()

    async def replace(self, project: str, definition: SegmentDefinition) -> None:
        self.fate.step()
        await super().replace(project, definition)
        self.fate.step()


class MortalBlobs(MemoryBlobStore):
    """Dies before or after it wrote; what was written is elsewhere."""

    def __init__(self, fate: Fate, kept: MemoryBlobStore) -> None:
        super().__init__()
        self._fate = fate
        self._blobs = kept._blobs

    async def put(self, key: str, data: bytes | Path) -> None:
        if key.startswith("segments/"):
            self._fate.step()
            await super().put(key, data)
            self._fate.step()
        else:
            await super().put(key, data)


class World:
    """What survives processes."""

    def __init__(self, database: Database, settings: FeaturesSettings) -> None:
        self.database = database
        self.settings = settings
        self.log = MemoryLog()
        self.clock = ManualClock(NOW_US)
        self.blobs = MemoryBlobStore()
        self.done = 0
        """Steps of the story that were acknowledged."""

    @contextlib.asynccontextmanager
    async def process(self, fate: Fate) -> AsyncIterator[ProjectSegments]:
        """A process; when it dies it leaves nothing but what is durable."""
        blobs = MortalBlobs(fate, self.blobs)
        store, entries = MortalSegments(self.database), MortalJournal(self.database)
        store.fate = entries.fate = fate
        changes = ChangeJournal(entries, self.clock)
        async with Projects(
            DefinitionStore(self.database), self.log, blobs, self.settings, self.clock
        ).open() as projects:
            project = await projects.get("shop")
            if not project.catalog.groups:
                await publish(project, group())
            await project.ready.wait()
            segments = Segments(projects, store, changes, blobs, self.settings, self.clock)
            async with segments.open():
                yield await segments.of("shop")

    async def tell(self, segments: ProjectSegments) -> None:
        """The story, from where it is."""
        keeper = segments.keeper
        while self.done < 7:
            match self.done:
                case 0:
                    definition = SegmentDefinition("buyers", "user_id", "buys >= 1")
                    with contextlib.suppress(AlreadyExists):
                        await segments.create(definition, None, validate_only=False)
                case 1:
                    await self.log.append(purchase(4, "cleo", NOW_US - 5, 1.0), purchase(5, "dan", NOW_US - 4, 1.0))
                    self.done += 1
                    continue
                case 3:
                    self.clock.advance(6 * DAY_US)
                case 4:
                    live = segments.get(NAME)
                    await segments.update(
                        NAME, lambda before: replace(before, condition="buys >= 2"), "", validate_only=False
                    )
                    assert live.definition.condition == "buys >= 2"
                case 5:
                    at_us = NOW_US + 6 * DAY_US - 3
                    await self.log.append(purchase(6, "cleo", at_us, 1.0), purchase(7, "eve", at_us, 1.0))
                case _:
                    keeper.refresh()
                    await keeper.wait_for(len(self.log.rows), 20)
                    await keeper.wait_current(segments.get(NAME), 20)
                    await asyncio.sleep(0.03)
            self.done += 1


async def alive_or_dead(work: object, fate: Fate) -> None:
    """Goes on until the work is done or the process has died."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    death = asyncio.ensure_future(fate.dead.wait())
    await asyncio.wait((task, death), return_when=asyncio.FIRST_COMPLETED, timeout=30)
    for each in (task, death):
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError, KilledError):
            await each


@pytest.mark.parametrize("steps", range(17))
async def test_whenever_it_is_killed_the_journal_tells_each_change_once(tmp_path: Path, steps: int) -> None:
    settings = FeaturesSettings(data_dir=tmp_path, tick_seconds=0.02)
    packages = (operations.MIGRATIONS, MIGRATIONS, SEGMENT_MIGRATIONS, journal.MIGRATIONS)
    async with Database.open(settings.database_url, packages) as database:
        world = World(database, settings)
        world.log.rows += [purchase(1, "ann", NOW_US - DAY_US, 1.0), purchase(2, "ann", NOW_US - DAY_US, 1.0)]
        world.log.rows += [purchase(3, "bob", NOW_US - 2 * DAY_US, 1.0)]
        fate = Fate(steps)
        with contextlib.suppress(KilledError):
            async with world.process(fate) as segments:
                await alive_or_dead(world.tell(segments), fate)
        fate = Fate(1_000)
        async with world.process(fate) as segments:
            await alive_or_dead(world.tell(segments), fate)
            assert world.done == 7
            live = segments.get(NAME)
            await segments.keeper.wait_current(live, 20)
            reader = ChangeJournal(JournalStore(database), world.clock)
            page = await reader.read("shop", [live.definition.stream], 0, 100)
            told: dict[str, list[str]] = {}
            for entry in page.entries:
                told.setdefault(entry.change.key_value, []).append(entry.change.change)
            assert all(x != y for changes in told.values() for x, y in pairwise(changes)), told
            numbers = live.members.numbers()
            assert live.universe.texts(numbers).to_pylist() == ["cleo"]
            last = {key for key, changes in told.items() if changes[-1] == "entered"}
            # Those that were members from the first have no entry until they leave.
            assert last == {"cleo"} or (not told and steps < 6)
            assert "eve" not in told or told["eve"][-1] == "left"
