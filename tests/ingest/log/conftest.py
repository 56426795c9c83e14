"""A place for a log of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.ingest.log import EventLog, open_log


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
