"""Archives for tests: a log's records as the files that ingest would write, and a listing of them."""

from collections.abc import Sequence
from pathlib import Path

from services.features.archive import ArchivedFile, ArchiveListing
from services.ingest.archive.files import write_files
from services.ingest.log.base import LogBatch
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch, to_ipc
from services.kernel.dedup import Deduplicator
from services.kernel.fold import DAY_US
from tests.features.memory_log import MemoryLog

PROJECT = "default"


def log_batch(rows: Sequence[EventRow], first: int) -> LogBatch:
    """Rows as one batch of the log."""
    batch = EventBatch(build_batch(rows))
    occurred, received = batch.occurred_at, batch.received_at
    return LogBatch(
        first,
        first + batch.num_rows - 1,
        to_ipc(batch.record_batch),
        int(occurred.min()),
        int(occurred.max()),
        int(received.max()),
    )


def archive(root: Path, parts: Sequence[Sequence[EventRow]], horizon_us: int = 7 * DAY_US) -> ArchiveListing:
    """Writes each part as one range of the archive below `root`."""
    seen, files, position = Deduplicator(horizon_us), [], 0
    for rows in parts:
        batch = log_batch(rows, position + 1)
        position = batch.last_position
        for file, content in write_files(PROJECT, batch.first_position, position, [batch], seen):
            path = root / file.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            files.append(
                ArchivedFile(
                    file.key,
                    file.first_position,
                    file.last_position,
                    file.min_occurred_us,
                    file.max_occurred_us,
                    file.event_count,
                    file.size_bytes,
                )
            )
    return ArchiveListing(PROJECT, tuple(files), position, None, horizon_us)


class MemoryListings:
    """The archive of a log in memory, written anew whenever it is listed."""

    def __init__(self, log: MemoryLog, root: Path) -> None:
        self._log = log
        self._root = root

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """See Listings."""
        rows = self._log.rows
        return archive(self._root, [rows] if rows else [], self._log.settings.horizon_us)
