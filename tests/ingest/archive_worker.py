"""A process to be killed: appends events, some of them twice, and archives them all the while.

`python -m tests.ingest.archive_worker FOLDER FIRST` appends batches of events numbered from FIRST, and prints the
number of the first and the last event of each acknowledged batch. A third of the batches begins with events of the one
before.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.ingest.archive import MIGRATIONS, Archive, ArchivePolicy, CompactionPolicy
from services.ingest.log import EventLog, open_log
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch, to_ipc
from services.runtime.blobs import FolderBlobStore
from services.runtime.database import Database

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
PROJECT = "shop"


def event(number: int, at_hour: int | None = None, **properties: object) -> EventRow:
    """An event told by its number: it occurred in one of five hours."""
    hour = number % 5 if at_hour is None else at_hour
    return EventRow(
        f"event-{number}",
        "purchase",
        100 * DAY_US + hour * HOUR_US + number,
        200 * DAY_US + number,
        {"user_id": f"user-{number % 7}"},
        properties={"amount": number / 4, **properties},  # type: ignore[dict-item]
    )


async def append(log: EventLog, rows: list[EventRow], project: str = PROJECT) -> int:
    """Appends events as one batch; returns its last position."""
    batch = EventBatch(build_batch(rows))
    placed = await log.append(
        project,
        to_ipc(batch.record_batch),
        batch.num_rows,
        min_occurred_us=int(batch.occurred_at.min()),
        max_occurred_us=int(batch.occurred_at.max()),
        received_us=int(batch.received_at.max()),
    )
    return placed.last


async def week_us(_project: str) -> int:
    """The default horizon."""
    return 7 * DAY_US


@asynccontextmanager
async def opened(folder: Path, policy: ArchivePolicy | None = None) -> AsyncIterator[tuple[EventLog, Archive]]:
    """A log and its archive below a folder."""
    async with (
        open_log(f"sqlite:///{folder / 'log.db'}") as log,
        Database.open(f"sqlite:///{folder / 'ingest.db'}", MIGRATIONS) as database,
    ):
        blobs = FolderBlobStore(folder / "blobs")
        yield log, Archive(log, blobs, database, week_us, policy or ArchivePolicy())


async def main(folder: str, first: int) -> None:
    """Appends and archives without end."""
    compaction = CompactionPolicy(ranges=4)
    policy = ArchivePolicy(flush_bytes=20_000, flush_seconds=0.05, poll_seconds=0.01, compaction=compaction)
    chance = random.Random(first)
    async with opened(Path(folder), policy) as (log, archive):
        archiving = asyncio.create_task(archive.run())
        while not archiving.done():
            last = first + chance.randrange(1, 200)
            repeated = max(0, first - chance.choice((0, 0, 50)))
            await append(log, [event(number) for number in range(repeated, last)])
            os.write(sys.stdout.fileno(), f"{first} {last - 1}\n".encode())
            first = last
        await archiving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
