"""The services as `inkling up` runs them, for tests of the whole: real processes, real keys, killed without mercy."""

import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from inkling.cli.suite import SERVICES, Suite
from inkling.client import AsyncClient, RetryPolicy
from services.runtime.auth import MIGRATIONS, KeyStore, Role
from services.runtime.database import Database

ROLES = (Role.INGEST, Role.READ, Role.DEFINE, Role.OPERATE)


@asynccontextmanager
async def running_suite(
    data_dir: Path, *, names: Collection[str] = ("ingest", "features"), **settings: str
) -> AsyncIterator[Suite]:
    """Services on free ports of this machine; `settings` are environment variables by their whole name."""
    environ = {**os.environ, **{name.upper(): value for name, value in settings.items()}}
    services = [spec for spec in SERVICES if spec.name in names]
    async with Suite(data_dir, environ=environ, ports=dict.fromkeys(names, 0), services=services) as suite:
        await suite.start(timeout=120)
        yield suite


async def key_of(data_dir: Path, project: str) -> str:
    """A fresh key of a project that may do everything."""
    async with Database.open(f"sqlite:///{data_dir / 'auth.db'}", MIGRATIONS) as database:
        _, secret = await KeyStore(database).create(project, ROLES)
        return secret


@asynccontextmanager
async def client_of(suite: Suite, project: str, **more: RetryPolicy) -> AsyncIterator[AsyncClient]:
    """A client of a project, with a key of its own."""
    addresses: Mapping[str, str] = {name: suite.address(name) for name in suite.names}
    async with AsyncClient(api_key=await key_of(suite.data_dir, project), **addresses, **more) as client:  # type: ignore[arg-type]
        yield client
