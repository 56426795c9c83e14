"""Databases of both kinds, and a server of every kind of method."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.auth import MIGRATIONS as KEYS
from services.runtime.auth import KeyStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.operations import MIGRATIONS as OPERATIONS

NOW_US = 1_700_000_000_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the runtime's tables."""
    async with Database.open(database_url, (KEYS, OPERATIONS)) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock(NOW_US)


@pytest.fixture
async def keys(tmp_path: Path, clock: ManualClock) -> AsyncIterator[KeyStore]:
    """An empty key store with a service key, on SQLite."""
    async with Database.open(f"sqlite:///{tmp_path / 'auth.db'}", KEYS) as opened:
        yield KeyStore(opened, service_key="s" * 40, clock=clock)


@pytest.fixture
def unused_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
