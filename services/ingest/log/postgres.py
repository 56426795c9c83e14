"""The log of a small cluster: PostgreSQL, written by several replicas of ingest at once.

Each replica gathers what its callers want to append and commits it in one transaction at a time. The database orders
the replicas (see `postgres_schema`) and tells them of each other's appends by NOTIFY, which wakes readers at once; a
poll finds what a broken listening connection missed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import psycopg
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.log import postgres_schema as schema
from services.ingest.log.base import (
    Entry,
    EventLog,
    LogBatch,
    LogStats,
    PositionRange,
    Trimmed,
    check_replacement,
    log_unavailable,
)
from services.ingest.log.extents import Extent, Extents
from services.ingest.log.tail import Tail
from services.runtime.database import Database, translated_errors
from services.runtime.errors import Aborted, InklingError, Unavailable

_LOGGER = logging.getLogger(__name__)
_GROUP_BYTES = 32 * 1024 * 1024
"""A transaction takes no further batch beyond this."""
_TRIM_BATCHES = 256
"""Batches removed in one transaction: appends wait no longer than for this."""
_POLL_SECONDS = 1.0
"""How often heads are read that somebody waits for, in case a notification was lost."""
_PATIENCE_SECONDS = 30.0
"""A database that has not answered by then is taken for lost."""


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    entry: Entry
    done: "asyncio.Future[PositionRange]"


class PostgresEventLog(EventLog):
    """A log in two tables of a PostgreSQL database."""

    def __init__(self, database: Database, tail: Tail, resources: AsyncExitStack) -> None:
        """For `open`."""
        self._database = database
        self._tail = tail
        self._resources = resources
        self._waiting: deque[_Append] = deque()
        self._some = asyncio.Event()
        # Another replica may trim too: what it did is seen a moment later.
        self._extents = Extents(self._extent, seconds=_POLL_SECONDS)
        self._closed = False
        self._writer = asyncio.create_task(self._write(), name="log-writer")
        self._followers = [
            asyncio.create_task(self._listen(), name="log-listener"),
            asyncio.create_task(self._poll(), name="log-poller"),
        ]

    @classmethod
    async def open(cls, url: str, *, tail_bytes: int = 64 * 1024 * 1024) -> "PostgresEventLog":
        """Connects to `postgresql://…` and brings the tables up to date.

        `tail_bytes` of the batches that this replica appended last stay in memory for readers that keep up.
        """
        target = make_url(url)
        # Whatever the server's default: an acknowledged batch is on its disk.
        options = {"options": "-c synchronous_commit=on", "connect_timeout": "10"}
        target = target.update_query_dict({**options, **target.query})
        async with AsyncExitStack() as stack:
            with _log_errors():
                opening = Database.open(target.render_as_string(hide_password=False), "services.ingest.log.migrations")
                database = await stack.enter_async_context(opening)
            return cls(database, Tail(tail_bytes), stack.pop_all())

    async def append(
        self,
        project: str,
        record_batch: bytes | bytearray | memoryview,
        count: int,
        *,
        min_occurred_us: int,
        max_occurred_us: int,
        received_us: int,
    ) -> PositionRange:
        entry = Entry.checked(project, record_batch, count, min_occurred_us, max_occurred_us, received_us)
        self._check_open()
        item = _Append(entry, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._some.set()
        return await item.done

    async def read(self, project: str, after_position: int, max_bytes: int) -> list[LogBatch]:
        self._check_open()
        recent = self._tail.read(project, after_position, max_bytes)
        if recent is not None:
            return recent
        async with self._transaction() as connection:
            return await schema.read(connection, project, after_position, max_bytes)

    async def wait(self, project: str, after_position: int) -> int:
        known = self._tail.head(project)
        if known is None or known <= after_position:
            self._tail.advance(project, await self.head(project))
        return await self._tail.wait(project, after_position)

    async def head(self, project: str) -> int:
        async with self._transaction() as connection:
            return (await schema.heads(connection, [project])).get(project, 0)

    async def oldest(self, project: str) -> int:
        first = (await self._extents.get(project)).oldest
        if first is not None:
            return first
        # The head first: whatever is appended meanwhile, the answer was true at some instant in between.
        head = await self.head(project)
        first = (await self._extents.get(project)).oldest
        return head + 1 if first is None else first

    async def complete_since_us(self, project: str) -> int | None:
        self._check_open()
        return (await self._extents.get(project)).complete_since_us

    async def _extent(self, project: str) -> Extent:
        async with self._transaction() as connection:
            return await schema.extent(connection, project)

    async def trim(self, project: str, before_occurred_us: int) -> Trimmed:
        total = Trimmed(0, 0, 0)
        while True:
            self._extents.change(project)
            try:
                async with self._transaction() as connection:
                    part = await schema.trim(connection, project, before_occurred_us, _TRIM_BATCHES)
            finally:
                self._tail.forget(project)
                self._extents.change(project)
            total += part
            if part.batches < _TRIM_BATCHES:
                return total

    async def replace(self, project: str, before: LogBatch, after: LogBatch) -> bool:
        check_replacement(before, after)
        try:
            async with self._transaction() as connection:
                return await schema.replace(connection, project, before, after)
        finally:
            self._tail.forget(project)

    async def scrub(self) -> None:
        """Nothing: the server alone rewrites its files (docs/operations.md says how to have it done)."""
        self._check_open()

    async def projects(self) -> list[str]:
        async with self._transaction() as connection:
            return sorted(await schema.heads(connection))

    async def stats(self, project: str) -> LogStats:
        async with self._transaction() as connection:
            return await schema.stats(connection, project)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._tail.close()
        self._some.set()
        await self._writer
        for follower in self._followers:
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        await self._resources.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise log_unavailable("the log is closing: connect again")

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        self._check_open()
        with _log_errors():
            async with asyncio.timeout(_PATIENCE_SECONDS), self._database.engine.begin() as connection:
                yield connection

    # Writing: one transaction at a time, of everything that waits ------------------------------------------------

    async def _write(self) -> None:
        while True:
            group = self._gather()
            if group:
                await self._commit(group)
            elif self._closed:
                return
            else:
                self._some.clear()
                await self._some.wait()

    def _gather(self) -> list[_Append]:
        group: list[_Append] = []
        size = 0
        while self._waiting and size < _GROUP_BYTES:
            item = self._waiting.popleft()
            if not item.done.done():
                group.append(item)
                size += len(item.entry.data)
        return group

    async def _commit(self, group: Sequence[_Append]) -> None:
        entries = [item.entry for item in group]
        try:
            with _log_errors():
                async with asyncio.timeout(_PATIENCE_SECONDS), self._database.engine.begin() as connection:
                    batches = await schema.append(connection, entries)
        except Exception as error:
            for item in group:
                if not item.done.done():
                    item.done.set_exception(error)
            return
        for item, batch in zip(group, batches, strict=True):
            self._tail.push(item.entry.project, batch)
            if not item.done.done():
                item.done.set_result(PositionRange(batch.first_position, batch.last_position))

    # Following the other replicas --------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                async with self._listening() as connection:
                    # Whatever was replaced while nobody listened is not known here.
                    self._tail.forget_all()
                    async for notification in connection.notifies():
                        head, _, project = notification.payload.partition(" ")
                        if head == "0":
                            self._tail.forget(project)
                        else:
                            self._tail.advance(project, int(head))
            except (psycopg.Error, Unavailable) as error:
                _LOGGER.warning("the event log's notifications broke off: %s", type(error).__name__)
            await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A connection of its own, out of the pool for good."""
        with _log_errors():
            async with self._database.engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.exec_driver_sql(f"LISTEN {schema.CHANNEL}")
                driver = (await connection.get_raw_connection()).driver_connection
                if not isinstance(driver, psycopg.AsyncConnection):
                    raise TypeError(f"the driver of the event log is psycopg, not {type(driver).__name__}")
                try:
                    yield driver
                finally:
                    await connection.invalidate()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            waiting = self._tail.waiting()
            if waiting:
                with suppress(Unavailable):
                    async with self._transaction() as connection:
                        heads = await schema.heads(connection, waiting)
                    for project, head in heads.items():
                        self._tail.advance(project, head)


@contextmanager
def _log_errors() -> Iterator[None]:
    """Turns the database's errors into Unavailable with the log's reason, and logs which it was."""
    try:
        with translated_errors():
            yield
    except (Unavailable, Aborted, TimeoutError) as error:
        if isinstance(error, InklingError) and error.reason:
            raise
        _LOGGER.error("the event log's database failed: %s", type(error.__cause__ or error).__name__)
        raise log_unavailable("the event log's database is not available: try again") from error
