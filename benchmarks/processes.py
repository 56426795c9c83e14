"""The services as processes: for the benchmarks that go through gRPC."""

import contextlib
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from inkling.cli.suite import SERVICES, Suite
from inkling.cli.up import first_key


@contextlib.asynccontextmanager
async def running_suite(
    folder: Path, names: Collection[str] = ("ingest", "features")
) -> AsyncIterator[tuple[Suite, str]]:
    """Services on a folder, on free ports, with a key that may do everything."""
    services = [spec for spec in SERVICES if spec.name in names]
    async with Suite(folder, environ=os.environ, ports=dict.fromkeys(names, 0), services=services) as suite:
        key = await first_key(folder)
        assert key is not None, "the folder is new"
        await suite.start()
        yield suite, key
