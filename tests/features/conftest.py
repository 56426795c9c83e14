"""What tests of features share: a log in memory, and a project that follows it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.features.projects import Projects
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore
from services.runtime import operations
from services.runtime.blobs import MemoryBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from tests.features.memory_log import NOW_US, MemoryLog
from tests.features.serving import Client, serving


@pytest.fixture
def log() -> MemoryLog:
    """An empty log."""
    return MemoryLog()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands."""
    return ManualClock(NOW_US)


@pytest.fixture
def blobs() -> MemoryBlobStore:
    """Where snapshots go."""
    return MemoryBlobStore()


@pytest.fixture
def settings(tmp_path: Path) -> FeaturesSettings:
    """Settings with a folder of their own."""
    return FeaturesSettings(data_dir=tmp_path, tick_seconds=0.02)


@pytest.fixture
async def store(settings: FeaturesSettings) -> AsyncIterator[DefinitionStore]:
    """A store over a real database."""
    async with Database.open(settings.database_url, (operations.MIGRATIONS, MIGRATIONS)) as database:
        yield DefinitionStore(database)


@pytest.fixture
async def projects(
    store: DefinitionStore, log: MemoryLog, blobs: MemoryBlobStore, settings: FeaturesSettings, clock: ManualClock
) -> AsyncIterator[Projects]:
    """The projects of a process."""
    async with Projects(store, log, blobs, settings, clock).open() as opened:
        yield opened


@pytest.fixture
def served_settings(tmp_path: Path) -> FeaturesSettings:
    """Settings of a server without keys on a free port."""
    return FeaturesSettings(data_dir=tmp_path, port=0, insecure=True, tick_seconds=0.02, grace_seconds=0.1)


@pytest.fixture
async def client(served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a server of its own."""
    async with serving(served_settings, log, clock) as opened:
        yield opened
