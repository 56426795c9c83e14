"""Takes the rows of a subject out of the archive's files.

A file is written anew under its own name, which replaces it in one step, and then the index learns its new numbers; a
file that is left without rows goes. Done again after a crash, each file is found as it is: one that was replaced while
the index was not told has other numbers than the index says, and is told then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.ingest.archive.archiver import Archive
from services.ingest.archive.compaction import CompactionPolicy, Compactor
from services.ingest.archive.files import ArchiveFile, read_file, written_anew
from services.ingest.archive.index import ArchiveIndex
from services.kernel.columns import EventBatch, key_column
from services.runtime.blobs import BlobStore
from services.runtime.errors import NotFound

_SCANNED = ("position", "event_id", "event_type", "occurred_at", "received_at", "operation", "revision", "fingerprint")
_NEVER_US = -(2**63)


class Positioned(NamedTuple):
    """Events with their positions in the log."""

    positions: NDArray[np.int64]
    events: EventBatch


class Taken(NamedTuple):
    """What was taken out."""

    rows: int
    files: int


class ArchiveEraser:
    """Erases in the archive of any project."""

    def __init__(self, index: ArchiveIndex, blobs: BlobStore, archive: Archive | None) -> None:
        """`archive` is the one that this process writes, if it does."""
        self._index = index
        self._blobs = blobs
        self._archive = archive
        self._compactor = Compactor(index.database, blobs, CompactionPolicy())

    async def read(self, project: str, attribute_key: str, up_to: int) -> AsyncIterator[Positioned]:
        """The events up to a position, with one key's column, file by file."""
        columns = (*_SCANNED, key_column(attribute_key))
        for file in await self._index.find(project, last_position=up_to):
            found = await self._read(file, columns)
            if found is not None:
                yield found

    async def erase(
        self, project: str, up_to: int, rows_of: Callable[[EventBatch], NDArray[np.bool_]]
    ) -> AsyncIterator[Taken]:
        """Takes rows out of the files that reach up to a position, file by file; `rows_of` says which.

        What was being archived is finished first, and nothing is archived meanwhile: the log must be emptied before.
        """
        if self._archive is not None:
            await self._archive.flush(project)
        async with self._quiet(project):
            # Files that were merged into others, and those of a merging that was interrupted.
            await self._compactor.tidy(project)
            # Files that retention took out of sight, and was interrupted before it deleted them.
            for file in await self._index.condemn(project, _NEVER_US):
                await self._drop(file)
            for file in await self._index.find(project, last_position=up_to):
                yield await self._erase_in(file, up_to, rows_of)

    async def tidy(self, project: str) -> int:
        """Deletes files that the index does not know, of ranges that are archived; returns how many.

        A crash may leave some: of a range that was then archived otherwise. Listing also removes unfinished files of
        long ago.
        """
        async with self._quiet(project):
            await self._compactor.tidy(project)
            return await self._delete_unknown(project)

    async def _delete_unknown(self, project: str) -> int:
        # The files first: one whose range is finished meanwhile is known when the index is asked.
        found = {blob.key for blob in await self._blobs.list(f"archive/{project}/")}
        position = (await self._index.progress(project)).position
        known = {file.key for file in await self._index.find(project)}
        lost = [key for key in sorted(found - known) if key.endswith(".parquet") and _last_position(key) <= position]
        for key in lost:
            await self._blobs.delete(key)
        return len(lost)

    def _quiet(self, project: str) -> AbstractAsyncContextManager[object]:
        return nullcontext() if self._archive is None else self._archive.quiet(project)

    async def _erase_in(
        self, file: ArchiveFile, up_to: int, rows_of: Callable[[EventBatch], NDArray[np.bool_]]
    ) -> Taken:
        found = await self._read(file, None)
        if found is None:
            return Taken(0, 0)
        gone = rows_of(found.events) & (found.positions <= up_to)
        count = int(gone.sum())
        if not count:
            size = len(await self._blobs.get(file.key))
            if (found.events.num_rows, size) != (file.event_count, file.size_bytes):
                await self._index.amend(_measured(file, found.events, size))
            return Taken(0, 0)
        if count == found.events.num_rows:
            await self._index.amend(file, condemned=True)
            await self._drop(file)
            return Taken(count, 1)
        left = Positioned(found.positions[~gone], found.events.take(~gone))
        content = await asyncio.to_thread(_content, file, left)
        await self._blobs.put(file.key, content)
        await self._index.amend(_measured(file, left.events, len(content)))
        return Taken(count, 1)

    async def _drop(self, file: ArchiveFile) -> None:
        await self._blobs.delete(file.key)
        await self._index.forget(file)

    async def _read(self, file: ArchiveFile, columns: Sequence[str] | None) -> Positioned | None:
        try:
            source = await self._blobs.open_path(file.key) or await self._blobs.get(file.key)
        except NotFound:
            return None  # retention was faster
        table = await asyncio.to_thread(read_file, source, columns)
        batches = table.unify_dictionaries().combine_chunks().to_batches()
        if not batches:
            return None
        positions = batches[0].column("position").to_numpy()
        rest = [name for name in batches[0].schema.names if name != "position"]
        return Positioned(positions, EventBatch(batches[0].select(rest)))


def _measured(file: ArchiveFile, events: EventBatch, size: int) -> ArchiveFile:
    occurred = events.occurred_at
    return replace(
        file,
        min_occurred_us=int(occurred.min()),
        max_occurred_us=int(occurred.max()),
        event_count=events.num_rows,
        size_bytes=size,
    )


def _last_position(key: str) -> int:
    return int(key.rpartition("-")[2].removesuffix(".parquet"))


def _content(file: ArchiveFile, left: Positioned) -> bytes:
    table = pa.Table.from_batches([left.events.record_batch])
    return written_anew(file, table.add_column(0, "position", pa.array(left.positions)))
