"""Makes few files of many: consecutive small ranges of the archive become one, as if they had been archived together.

All hours of the ranges are merged, so that ranges never overlap: readers go through them in the order of the log. The
result is a function of the files alone. A crash between any two steps leaves the index whole, and is tidied up by the
next run:

1. The new files are noted as wanted, then written. What is wanted and not in the index is deleted by the next run.
2. In one transaction the index takes the new files in for the old ones, which are noted as unwanted.
3. The old files are deleted. Who listed them before finds them gone, and lists again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from services.ingest.archive.files import ArchiveFile, Written, merged, read_file
from services.ingest.archive.leavings import ArchivedRange, Leavings
from services.runtime.blobs import BlobStore
from services.runtime.database import Database
from services.runtime.errors import NotFound

_TIERS = (8_192, 131_072)
"""Ranges of fewer events are merged with their like: first the small ones, then what became of these."""


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """When ranges are merged."""

    ranges: int = 16
    """So many consecutive ones of about one size; 0: never."""
    most_events: int = 1_000_000
    """What one range holds at most after it."""


class Compactor:
    """Merges ranges of any project's archive. Call it while nothing else is archived or erased in the project."""

    def __init__(self, database: Database, blobs: BlobStore, policy: CompactionPolicy) -> None:
        """`database` was opened with `index.MIGRATIONS`."""
        self._leavings = Leavings(database)
        self._blobs = blobs
        self._policy = policy

    async def compact(self, project: str) -> int:
        """Merges what is due; returns how many files there are less."""
        await self.tidy(project)
        before = after = 0
        while chosen := due(await self._leavings.ranges(project), self._policy):
            old = await self._leavings.files(project, chosen[0].first_position, chosen[-1].last_position)
            new = await self._merge(project, old, chosen[0].first_position, chosen[-1].last_position)
            replaced = bool(new) and await self._leavings.replace(old, [file for file, _ in new])
            # Also what was written in vain.
            await self.tidy(project)
            if not replaced:
                break
            before, after = before + len(old), after + len(new)
        return before - after

    async def tidy(self, project: str) -> int:
        """Deletes what earlier runs left; returns how many files."""
        unwanted = await self._leavings.unwanted(project)
        for key in unwanted:
            await self._blobs.delete(key)
            await self._leavings.forget(project, key)
        return len(unwanted)

    async def _merge(self, project: str, old: Sequence[ArchiveFile], first: int, last: int) -> list[Written]:
        """Writes the new files; none when one of the old is gone."""
        hours = [list(files) for _, files in groupby(old, key=lambda file: file.hour_us)]
        wanted = [replace(files[0], first_position=first, last_position=last) for files in hours]
        await self._leavings.want(project, [file.key for file in wanted])
        new: list[Written] = []
        for files, file in zip(hours, wanted, strict=True):
            try:
                tables = [await self._read(each) for each in files]
            except NotFound:
                return []
            written = await asyncio.to_thread(merged, file, tables)
            await self._blobs.put(file.key, written.content)
            # The bytes are not needed any more.
            new.append(Written(written.file, b""))
        return new

    async def _read(self, file: ArchiveFile) -> pa.Table:
        source: Path | bytes = await self._blobs.open_path(file.key) or await self._blobs.get(file.key)
        try:
            return await asyncio.to_thread(read_file, source)
        except FileNotFoundError as error:
            raise NotFound(f"{file.key} is gone", reason="NOT_FOUND") from error


def due(ranges: Sequence[ArchivedRange], policy: CompactionPolicy) -> list[ArchivedRange]:
    """The ranges to merge next, in the order of the log; none when nothing is due."""
    if policy.ranges < 2:
        return []
    for tier in range(len(_TIERS)):
        run: list[ArchivedRange] = []
        for each in ranges:
            fits = sum(one.event_count for one in run) + each.event_count <= policy.most_events
            if each.whole and _tier(each) <= tier and fits:
                run.append(each)
                continue
            if _is_due(run, tier, policy):
                return run
            run = [each] if each.whole and _tier(each) <= tier else []
        if _is_due(run, tier, policy):
            return run
    return []


def _is_due(run: Sequence[ArchivedRange], tier: int, policy: CompactionPolicy) -> bool:
    return sum(_tier(each) == tier for each in run) >= policy.ranges


def _tier(each: ArchivedRange) -> int:
    return sum(each.event_count >= bound for bound in _TIERS)
