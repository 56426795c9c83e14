"""The SQL database of a process: SQLite when embedded, PostgreSQL on a cluster.

    async with Database.open(settings.database_url, "services.ingest.migrations") as database:
        async with database.session() as session:
            ...

A session is one transaction. On SQLite a writing session takes the write lock with its first statement, so that it
never fails half-way because another one wrote; `read_only=True` reads a snapshot beside the writers.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from services.runtime import schema
from services.runtime.errors import Aborted, AlreadyExists, FailedPrecondition, InklingError, Unavailable

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_BEGIN = "sqlite_begin"
_BUSY_SECONDS = 10.0
_RETRY_AFTER = timedelta(seconds=1)
_SCRUB_TRIES, _SCRUB_SECONDS = 50, 0.1

_UNIQUE_VIOLATION = "23505"
_LOST_RACES = {"40001": "a concurrent change", "40P01": "a deadlock", "55P03": "a lock"}
# Connection exceptions, insufficient resources, operator intervention, system errors.
_UNAVAILABLE_CLASSES = ("08", "53", "57", "58")


class Database:
    """An open engine with its schema migrated."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writers = async_sessionmaker(engine, expire_on_commit=False)
        readers = engine.execution_options(**{_BEGIN: "BEGIN DEFERRED"})
        self._readers = async_sessionmaker(readers, expire_on_commit=False)

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for what sessions cannot do (COPY, LISTEN); guard its use with `translated_errors`."""
        return self._engine

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, migrations: str | Sequence[str] = ()) -> AsyncIterator["Database"]:
        """Opens `sqlite:///FILE` or `postgresql://…` and brings the packages `migrations` (dotted names) up to date.

        Several processes may do so at once: one migrates, the others wait. Raises Unavailable when the database
        cannot be reached, FailedPrecondition when its schema is newer than this code.
        """
        packages = (migrations,) if isinstance(migrations, str) else tuple(migrations)
        engine = create_engine(url)
        try:
            with translated_errors():
                if engine.dialect.name == "sqlite":
                    await asyncio.to_thread(_make_sqlite_file, engine.url.database or "")
                async with engine.begin() as connection:
                    await connection.run_sync(schema.upgrade, packages)
            yield cls(engine)
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        Errors of the database become errors of the domain (see `translated_errors`).
        """
        with translated_errors():
            async with (self._readers if read_only else self._writers).begin() as session:
                yield session

    async def scrub(self) -> None:
        """Leaves nothing in SQLite's files of what was deleted: the file is written anew and its log emptied.

        Raises Unavailable when readers were in the way all the time. PostgreSQL sees to its files itself (VACUUM).
        """
        if self.dialect != "sqlite":
            return
        with translated_errors():
            for _ in range(_SCRUB_TRIES):
                async with self._engine.connect() as connection:
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    await driver.execute("VACUUM")
                    async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
                        (busy, _, _) = await cursor.fetchone()
                if not busy:
                    return
                await asyncio.sleep(_SCRUB_SECONDS)
        raise Unavailable("readers were in the way of emptying the write-ahead log", retry_after=_RETRY_AFTER)


def create_engine(url: str) -> AsyncEngine:
    """An engine with our habits: drivers, pragmas, explicit transactions, no values in error messages."""
    parsed = _with_driver(make_url(url))
    if parsed.get_backend_name() == "postgresql":
        return create_async_engine(parsed, hide_parameters=True, pool_pre_ping=True, pool_size=10, max_overflow=10)
    engine = create_async_engine(parsed, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _with_driver(url: URL) -> URL:
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise ValueError(f"database {backend} is not supported: use sqlite or postgresql")
    return url.set(drivername=_DRIVERS[backend])


def _make_sqlite_file(path: str) -> None:
    """Makes the folder and the file, in WAL mode. The change of mode ignores busy_timeout: hence the loop."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + _BUSY_SECONDS
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transactions begin too late (not before reads, not before DDL): we send BEGIN ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns errors of the database into errors of the domain; those that mean a mistake of ours pass as they are.

    A broken unique constraint is AlreadyExists, another constraint FailedPrecondition; a lost race Aborted; a
    database that is gone, full, locked or shutting down Unavailable.
    """
    try:
        yield
    except InklingError:
        raise
    except PoolTimeoutError as error:
        raise Unavailable("all database connections are in use", retry_after=_RETRY_AFTER) from error
    except SQLAlchemyError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error
    except (OSError, sqlite3.OperationalError) as error:
        raise Unavailable("the database cannot be reached", retry_after=_RETRY_AFTER) from error


def _translate(error: SQLAlchemyError) -> InklingError | None:
    if not isinstance(error, DBAPIError):
        return None
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    sqlite_name = str(getattr(error.orig, "sqlite_errorname", None) or "")
    if isinstance(error, IntegrityError):
        if sqlstate == _UNIQUE_VIOLATION or sqlite_name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
            return AlreadyExists("it exists already")
        return FailedPrecondition("something else still refers to it, or what it refers to does not exist")
    if sqlstate in _LOST_RACES:
        return Aborted(f"lost a race with {_LOST_RACES[sqlstate]}: try again", retry_after=_RETRY_AFTER)
    if error.connection_invalidated or sqlstate[:2] in _UNAVAILABLE_CLASSES:
        return Unavailable("the database is not available", retry_after=_RETRY_AFTER)
    if sqlite_name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return Unavailable("the database is not available", retry_after=_RETRY_AFTER)
    if type(error).__name__ in ("OperationalError", "InterfaceError") and not sqlstate and not sqlite_name:
        return Unavailable("the database cannot be reached", retry_after=_RETRY_AFTER)
    return None
