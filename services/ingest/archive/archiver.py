"""Follows the log and writes it to the archive, each event once.

A range of the log is archived in four steps, and a crash between any two is repaired by doing them again:

1. The index notes that the range (position, pending] is begun. From now on exactly this range comes next.
2. Its files are computed, as a function of the log alone: the records that have an effect, after everything before.
3. The files are written, under names that only the range and the hour decide: again is the same.
4. In one transaction the index takes in the files and moves the position to the end of the range.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from services.ingest.archive.compaction import CompactionPolicy, Compactor
from services.ingest.archive.files import ArchiveFile, Written, write_files
from services.ingest.archive.index import ArchiveIndex, Progress
from services.ingest.archive.sightings import Sightings, SightingsStore
from services.ingest.log.base import EventLog, LogBatch
from services.runtime.blobs import BlobStore
from services.runtime.database import Database
from services.runtime.errors import InklingError

_LOGGER = logging.getLogger(__name__)
_READ_BYTES = 16 * 1024 * 1024
_CONCURRENT_WRITES = 4


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """When events go from the log to the archive: after so many bytes or seconds, whichever comes first."""

    flush_bytes: int = 32 * 1024 * 1024
    """Of the log; also what one range holds at most, or one batch."""
    flush_seconds: float = 300.0
    poll_seconds: float = 1.0
    """How often this is looked at."""
    compaction: CompactionPolicy = field(default_factory=CompactionPolicy)
    """When small ranges become one."""


@dataclass(slots=True)
class _Lag:
    """Since when, and since how many appended bytes, a project has events that are not archived."""

    since: float
    appended_bytes: int


class Archive:
    """The archive of every project's log.

    Several replicas may each run one: they do the same work, and one of them records it.
    """

    def __init__(
        self,
        log: EventLog,
        blobs: BlobStore,
        database: Database,
        horizon_us: Callable[[str], Awaitable[int]],
        policy: ArchivePolicy,
    ) -> None:
        """`database` was opened with `index.MIGRATIONS`; `horizon_us` tells a project's de-duplication horizon."""
        self._log = log
        self._blobs = blobs
        self._index = ArchiveIndex(database)
        self._store = SightingsStore(log, blobs)
        self._horizon_us = horizon_us
        self._policy = policy
        self._sightings: dict[str, Sightings] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._compactor = Compactor(database, blobs, policy.compaction)
        self._archived: dict[str, int] = {}
        self._compacted: dict[str, int] = {}
        self._lags: dict[str, _Lag] = {}

    async def run(self) -> None:
        """Archives what is due, for ever. A project that fails is tried again; the others do not wait for it."""
        while True:
            try:
                for project in await self._log.projects():
                    await self._flush_if_due(project)
            except InklingError as error:
                _LOGGER.warning("the archive cannot see the log: %s", error.message)
            await asyncio.sleep(self._policy.poll_seconds)

    async def _flush_if_due(self, project: str) -> None:
        try:
            if await self._due(project):
                await self.flush(project)
                self._lags.pop(project, None)
            # Also after what others asked to be archived.
            if self._archived[project] != self._compacted.get(project):
                await self.compact(project)
        except InklingError as error:
            _LOGGER.warning("a project could not be archived now: %s", error.message)
        except Exception:
            _LOGGER.exception("a project could not be archived")

    async def _due(self, project: str) -> bool:
        if project not in self._archived:
            self._archived[project] = (await self._index.progress(project)).position
        if await self._log.head(project) <= self._archived[project]:
            return False
        appended = (await self._log.stats(project)).appended_bytes
        now = asyncio.get_running_loop().time()
        lag = self._lags.setdefault(project, _Lag(now, appended))
        return (
            now - lag.since >= self._policy.flush_seconds or appended - lag.appended_bytes >= self._policy.flush_bytes
        )

    async def flush(self, project: str) -> int:
        """Archives everything that is in the log now; returns the position up to which the archive is complete."""
        target = await self._log.head(project)
        async with self._locks[project]:
            while True:
                progress = await self._index.progress(project)
                self._archived[project] = progress.position
                if progress.pending is None and progress.position >= target:
                    return progress.position
                try:
                    await self._archive_next(project, progress, target)
                except BaseException:
                    # Ids may have been seen of a range that is not archived: go back to what is.
                    self._sightings.pop(project, None)
                    raise

    async def settle(self, project: str) -> int:
        """As `flush`; and saves what is needed so that everything archived may be trimmed from the log."""
        position = await self.flush(project)
        async with self._locks[project]:
            await self._save(project)
        return position

    async def compact(self, project: str) -> int:
        """Merges small ranges when there are many; returns how many files there are less."""
        async with self._locks[project]:
            archived = self._archived.get(project, 0)
            fewer = await self._compactor.compact(project)
            self._compacted[project] = archived
        if fewer:
            _LOGGER.info("the archive has %d files less", fewer)
        return fewer

    def quiet(self, project: str) -> asyncio.Lock:
        """While it is held, this process archives nothing of the project."""
        return self._locks[project]

    async def position(self, project: str) -> int:
        """The position up to which a project is archived."""
        return (await self._index.progress(project)).position

    async def files(
        self,
        project: str,
        after_position: int = 0,
        last_position: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        after: tuple[int, int] | None = None,
        limit: int | None = None,
    ) -> list[ArchiveFile]:
        """The files with events in (after_position, last_position] that occurred in [start_us, end_us).

        They come by last position, then hour; `after` is where to go on, `limit` how many to give.
        """
        return await self._index.find(
            project, after_position, last_position, start_us, end_us, after=after, limit=limit
        )

    async def complete_since_us(self, project: str) -> int | None:
        """The event time from which on nothing is missing; None when nothing ever was."""
        return (await self._index.progress(project)).complete_since_us

    async def trim(self, project: str, before_occurred_us: int) -> int:
        """Deletes the files all of whose events occurred before an instant; returns how many."""
        # Out of the index first: a file that is found can be read, until just after it was found.
        condemned = await self._index.condemn(project, before_occurred_us)
        for file in condemned:
            await self._blobs.delete(file.key)
            await self._index.forget(file)
        return len(condemned)

    async def close(self) -> None:
        """Saves what makes the next start quick. Call it after `run` has ended."""
        for project in list(self._sightings):
            async with self._locks[project]:
                await self._save(project)

    # One range of one project, under its lock --------------------------------------------------------------------

    async def _archive_next(self, project: str, progress: Progress, head: int) -> None:
        sightings = await self._at(project, progress.position)
        pending = progress.pending
        if pending is None:
            batches = await self._log.read(project, progress.position, self._policy.flush_bytes)
            # Nothing to read below the head: it was trimmed.
            pending = batches[-1].last_position if batches else head
            if not await self._index.begin(project, progress.position, pending):
                return
        else:
            batches = await self._read(project, progress.position, pending)
        if _has_gap(progress.position, batches, pending):
            since = await self._log.complete_since_us(project)
            if since is not None:
                await self._index.note_missing(project, since)
        written = await asyncio.to_thread(
            lambda: list(write_files(project, progress.position + 1, pending, batches, sightings.seen))
        )
        sightings.position = pending
        await self._put(written)
        if await self._index.finish(project, progress.position, pending, [file for file, _ in written]):
            _LOGGER.info("archived %d events in %d files", sum(file.event_count for file, _ in written), len(written))
        if sightings.worth_saving():
            await self._store.save(project, sightings)

    async def _at(self, project: str, position: int) -> Sightings:
        """The sightings of everything that is archived."""
        horizon_us = await self._horizon_us(project)
        sightings = self._sightings.get(project)
        if sightings is None or sightings.position > position:
            sightings = self._sightings[project] = await self._store.load(project, position, horizon_us)
        await self._store.follow(project, sightings, position)
        if sightings.seen.horizon_us != horizon_us:
            # Saved at once, so that no part of the log is ever folded again under another horizon.
            sightings.seen.horizon_us = horizon_us
            await self._store.save(project, sightings)
        return sightings

    async def _read(self, project: str, position: int, last: int) -> list[LogBatch]:
        batches: list[LogBatch] = []
        while position < last:
            found = [b for b in await self._log.read(project, position, _READ_BYTES) if b.last_position <= last]
            if not found:
                break  # trimmed
            batches += found
            position = found[-1].last_position
        return batches

    async def _put(self, written: Sequence[Written]) -> None:
        slots = asyncio.Semaphore(_CONCURRENT_WRITES)

        async def put(file: ArchiveFile, content: bytes) -> None:
            async with slots:
                await self._blobs.put(file.key, content)

        await asyncio.gather(*(put(file, content) for file, content in written))

    async def _save(self, project: str) -> None:
        sightings = self._sightings.get(project)
        if sightings is not None and sightings.position > sightings.saved_position:
            await self._store.save(project, sightings)


def _has_gap(position: int, batches: Sequence[LogBatch], last: int) -> bool:
    """Whether batches lack any record after a position, up to and with the last: they were trimmed first."""
    for batch in batches:
        if batch.first_position > position + 1:
            return True
        position = batch.last_position
    return position < last
