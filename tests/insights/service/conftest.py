"""What tests of the service share: a log in memory, a clock that stands, a server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.insights.settings import InsightsSettings
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog
from tests.insights.service.serving import Client, serving


@pytest.fixture
def log() -> MemoryLog:
    """An empty log."""
    return MemoryLog()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands."""
    return ManualClock(NOW_US)


@pytest.fixture
def settings(tmp_path: Path) -> InsightsSettings:
    """Settings with a folder of their own."""
    return InsightsSettings(data_dir=tmp_path, port=0, insecure=True, tick_seconds=0.02, grace_seconds=0.1)


@pytest.fixture
async def client(settings: InsightsSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a running server."""
    async with serving(settings, log, clock) as opened:
        yield opened
