"""The thread that writes the SQLite log: group commit, checkpoints, and errors that leave nothing half-written."""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from services.ingest.log import sqlite_schema as schema
from services.ingest.log.base import Entry, PositionRange, log_unavailable
from services.ingest.log.tail import Tail

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_GROUP_BYTES = 32 * 1024 * 1024
"""A transaction takes no further batch beyond this."""


@contextmanager
def log_errors() -> Iterator[None]:
    """Turns SQLite's errors into Unavailable, and logs which it was."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        _LOGGER.error("the event log's database failed: %s", code)
        if code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            raise log_unavailable("the event log cannot write to its disk: nothing was stored, try again") from error
        raise log_unavailable("the event log's database failed: nothing was stored, try again") from error


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    entry: Entry
    done: "asyncio.Future[PositionRange]"


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """Any other change, made in a transaction of its own."""

    run: Callable[[sqlite3.Connection], Any]
    done: "asyncio.Future[Any]"


class Writer:
    """Owns the writing connection. Calls come from the event loop; everything else happens on the thread."""

    def __init__(self, connection: sqlite3.Connection, tail: Tail, checkpoint_bytes: int) -> None:
        self._connection = connection
        self._tail = tail
        self._checkpoint_bytes = checkpoint_bytes
        self._written = 0
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Append | _Change | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    async def append(self, entry: Entry) -> PositionRange:
        """Appends one entry, together with whatever else is waiting."""
        done: asyncio.Future[PositionRange] = self._loop.create_future()
        self._queue.put(_Append(entry, done))
        return await done

    async def change(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Makes another change; `run` begins and commits its transaction."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Change(run, done))
        return await done

    async def close(self) -> None:
        """Writes what was handed in before, moves the write-ahead log into the file, closes the connection."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        going = True
        while going:
            group: list[_Append] = []
            for item in self._take():
                if isinstance(item, _Append):
                    group.append(item)
                    continue
                self._commit(group)
                group = []
                if item is None:
                    going = False
                else:
                    self._make(item)
            self._commit(group)
            # After the answers, so that only those who come now wait for it.
            if self._written >= self._checkpoint_bytes:
                self._checkpoint("PASSIVE")
        self._checkpoint("TRUNCATE")
        self._connection.close()

    def _take(self) -> list[_Append | _Change | None]:
        """Everything that waits, at least one item."""
        items = [self._queue.get()]
        size = 0
        with suppress(queue.Empty):
            while size < _GROUP_BYTES:
                item = self._queue.get_nowait()
                size += len(item.entry.data) if isinstance(item, _Append) else 0
                items.append(item)
        return items

    def _commit(self, group: Sequence[_Append]) -> None:
        if not group:
            return
        entries = [item.entry for item in group]
        try:
            batches = self._transact(lambda connection: schema.append(connection, entries))
        except Exception as error:
            self._answer([_refuse(item.done, error) for item in group])
            return
        self._written += sum(len(entry.data) for entry in entries)

        def answer() -> None:
            for item, batch in zip(group, batches, strict=True):
                self._tail.push(item.entry.project, batch)
                if not item.done.done():
                    item.done.set_result(PositionRange(batch.first_position, batch.last_position))

        self._answer([answer])

    def _make(self, item: _Change) -> None:
        try:
            result = self._transact(item.run)
        except Exception as error:
            self._answer([_refuse(item.done, error)])
        else:
            self._answer([_resolve(item.done, result)])

    def _transact(self, run: Callable[[sqlite3.Connection], T]) -> T:
        with log_errors():
            try:
                return run(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _checkpoint(self, mode: str) -> None:
        # A checkpoint that fails (a full disk) loses nothing: the write-ahead log keeps what it could not move.
        with suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        self._written = 0

    def _answer(self, answers: Sequence[Callable[[], None]]) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(lambda: [answer() for answer in answers])


def _resolve(done: "asyncio.Future[Any]", result: object) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_result(result)


def _refuse(done: "asyncio.Future[Any]", error: Exception) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_exception(error)
