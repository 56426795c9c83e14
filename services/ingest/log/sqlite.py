"""The embedded log: one SQLite file.

It speaks to SQLite through the standard library, not through SQLAlchemy as the control plane does: an append is the hot
path of the whole suite, and here it is two prepared statements on a thread that does nothing else. That thread owns the
only writing connection. It takes whatever has come in since its last commit and commits it in one transaction, so that
concurrent callers share one fsync (WAL, `synchronous=FULL`: a commit returns when the write-ahead log is on the disk).
Readers have connections of their own and never wait for the writer; those that keep up read from memory.
"""

import asyncio
import fcntl
import math
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from services.ingest.log import sqlite_schema as schema
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
from services.ingest.log.extents import Extents
from services.ingest.log.sqlite_writer import Writer, log_errors
from services.ingest.log.tail import Tail
from services.runtime.errors import FailedPrecondition

T = TypeVar("T")

_TRIM_BATCHES = 256
"""Batches removed in one transaction: appends wait no longer than for this."""
_SCRUB_TRIES, _SCRUB_SECONDS = 100, 0.1
"""The write-ahead log can be emptied only between reads, which take milliseconds."""


class SqliteEventLog(EventLog):
    """A log in one file, open in one process at a time: a lock on a file beside it sees to that."""

    def __init__(self, path: Path, lock: IO[bytes], tail: Tail, writer: Writer, readers: int) -> None:
        """For `open`."""
        self._path = path
        self._lock = lock
        self._tail = tail
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="log-reader")
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._extents = Extents(partial(self._query, schema.extent), seconds=math.inf)
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        tail_bytes: int = 64 * 1024 * 1024,
        checkpoint_bytes: int = 4 * 1024 * 1024,
        readers: int = 4,
    ) -> "SqliteEventLog":
        """Opens the file, making or migrating it as needed.

        `tail_bytes` of the newest batches stay in memory for readers that keep up. The write-ahead log is moved into
        the file each `checkpoint_bytes`. Raises FailedPrecondition when another process has the log open.
        """
        lock = await asyncio.to_thread(_lock, path)
        try:
            with log_errors():
                connection = await asyncio.to_thread(schema.connect, path)
                heads = await asyncio.to_thread(schema.heads, connection)
        except BaseException:
            lock.close()
            raise
        tail = Tail(tail_bytes)
        for project, head in heads.items():
            tail.advance(project, head)
        return cls(path, lock, tail, Writer(connection, tail, checkpoint_bytes), readers)

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
        return await self._writer.append(entry)

    async def read(self, project: str, after_position: int, max_bytes: int) -> list[LogBatch]:
        if after_position >= await self.head(project):
            return []
        recent = self._tail.read(project, after_position, max_bytes)
        return await self._query(schema.read, project, after_position, max_bytes) if recent is None else recent

    async def wait(self, project: str, after_position: int) -> int:
        return await self._tail.wait(project, after_position)

    async def head(self, project: str) -> int:
        self._check_open()
        return self._tail.head(project) or 0

    async def oldest(self, project: str) -> int:
        # The head first: whatever is appended meanwhile, the answer was true at some instant in between.
        head = await self.head(project)
        first = (await self._extents.get(project)).oldest
        return head + 1 if first is None else first

    async def complete_since_us(self, project: str) -> int | None:
        self._check_open()
        return (await self._extents.get(project)).complete_since_us

    async def trim(self, project: str, before_occurred_us: int) -> Trimmed:
        total = Trimmed(0, 0, 0)
        while True:
            self._check_open()
            self._extents.change(project)
            try:
                part = await self._writer.change(partial(schema.trim, project, before_occurred_us, _TRIM_BATCHES))
            finally:
                self._tail.forget(project)
                self._extents.change(project)
            total += part
            if part.batches < _TRIM_BATCHES:
                return total

    async def replace(self, project: str, before: LogBatch, after: LogBatch) -> bool:
        check_replacement(before, after)
        self._check_open()
        try:
            return await self._writer.change(partial(schema.replace, project, before, after))
        finally:
            self._tail.forget(project)

    async def scrub(self) -> None:
        for _ in range(_SCRUB_TRIES):
            self._check_open()
            if await self._writer.change(schema.scrub):
                return
            await asyncio.sleep(_SCRUB_SECONDS)
        raise log_unavailable("the log's readers were in the way of scrubbing it: try again")

    async def projects(self) -> list[str]:
        return sorted(await self._query(schema.heads))

    async def stats(self, project: str) -> LogStats:
        return await self._query(schema.stats, project)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._tail.close()
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        while not self._idle.empty():
            self._idle.get().close()
        self._lock.close()

    def _check_open(self) -> None:
        if self._closed:
            raise log_unavailable("the log is closing: connect again")

    async def _query(self, query: Callable[..., T], *arguments: object) -> T:
        self._check_open()
        return await self._loop.run_in_executor(self._readers, self._run, partial(query, *arguments))

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with log_errors():
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = schema.connect_reader(self._path)
            try:
                return query(connection)
            finally:
                self._idle.put(connection)


def _lock(path: Path) -> IO[bytes]:
    """Takes the file beside the log that says it is in use; the operating system gives it back when we end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open(path.with_name(path.name + ".lock"), "ab")  # noqa: SIM115 - held until the log is closed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise FailedPrecondition("the event log is open in another process: stop that one first") from None
    return lock
