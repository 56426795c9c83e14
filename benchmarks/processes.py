"""The services as processes: for the benchmarks that go through gRPC."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from inkling.cli.suite import Suite
from inkling.cli.up import first_key


@contextlib.asynccontextmanager
async def running_suite(folder: Path) -> AsyncIterator[tuple[Suite, str]]:
    """The services on a folder, on free ports, with a key that may do everything."""
    async with Suite(folder, environ=os.environ, ports={"ingest": 0, "features": 0}) as suite:
        key = await first_key(folder)
        assert key is not None, "the folder is new"
        await suite.start()
        yield suite, key
