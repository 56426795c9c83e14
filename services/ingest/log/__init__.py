"""The event log: one interface (`base.EventLog`), and an implementation for each kind of URL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url

from services.ingest.log.base import EventLog, LogBatch, LogStats, PositionRange, Trimmed
from services.ingest.log.postgres import PostgresEventLog
from services.ingest.log.sqlite import SqliteEventLog

__all__ = ["EventLog", "LogBatch", "LogStats", "PositionRange", "Trimmed", "open_log"]

_TAIL_BYTES = 64 * 1024 * 1024


@asynccontextmanager
async def open_log(url: str, *, tail_bytes: int = _TAIL_BYTES) -> AsyncIterator[EventLog]:
    """Opens `sqlite:///FILE` or `postgresql://…`, and closes it at the end of the block.

    `tail_bytes` of the newest batches stay in memory for readers that keep up. Raises ValueError for another kind of
    URL, Unavailable when the database cannot be reached, FailedPrecondition when another process has the file open or
    it was written by a newer version.
    """
    target = make_url(url)
    log: EventLog
    match target.get_backend_name():
        case "sqlite" if target.database:
            log = await SqliteEventLog.open(Path(target.database), tail_bytes=tail_bytes)
        case "postgresql" | "postgres":
            log = await PostgresEventLog.open(url, tail_bytes=tail_bytes)
        case _:
            raise ValueError("an event log is sqlite:///FILE or postgresql://HOST/DATABASE")
    try:
        yield log
    finally:
        await log.close()
