"""The SQL database of a process: SQLite when embedded, PostgreSQL on a cluster."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession


class Database:
    """An open engine with its schema migrated."""

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for what sessions cannot do (COPY, LISTEN)."""
        raise NotImplementedError

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        raise NotImplementedError

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, migrations: str | Sequence[str] = ()) -> AsyncIterator["Database"]:
        """Opens `sqlite:///FILE` or `postgresql://…` and brings the packages of `migrations` (dotted names) up to date."""
        raise NotImplementedError
        yield

    def session(self, *, read_only: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back when it raises."""
        raise NotImplementedError
