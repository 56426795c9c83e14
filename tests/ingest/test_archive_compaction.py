"""Many small ranges of the archive become one, as if it had been archived at once, whatever fails meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from services.ingest.archive import MIGRATIONS, Archive, ArchivePolicy, CompactionPolicy
from services.ingest.archive.compaction import due
from services.ingest.archive.erasing import ArchiveEraser
from services.ingest.archive.index import ArchiveIndex
from services.ingest.archive.leavings import ArchivedRange
from services.ingest.log import EventLog, open_log
from services.kernel.columns import EventBatch
from services.runtime.blobs import MemoryBlobStore
from services.runtime.database import Database
from services.runtime.errors import Unavailable
from tests.ingest.archive_worker import DAY_US, PROJECT, append, event, week_us
from tests.ingest.test_archive import Fragile, archived, ids, keys, named

POLICY = ArchivePolicy(compaction=CompactionPolicy(ranges=3))


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty index in each kind of database."""
    embedded = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'index.db'}" if embedded else request.getfixturevalue("postgres_url")
    async with Database.open(url, MIGRATIONS) as database:
        yield database


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    """An empty log."""
    async with open_log(f"sqlite:///{tmp_path / 'log.db'}") as log:
        yield log


async def archive_in_parts(log: EventLog, archive: Archive, parts: int) -> None:
    """Appends and archives one range after the other: some events come twice, some columns seldom."""
    for part in range(parts):
        first = part * 20
        numbers = range(max(0, first - 5), first + 20)
        await append(log, [event(n, seldom=part) if part % 2 else event(n) for n in numbers])
        await archive.flush(PROJECT)


async def contents(archive: Archive, blobs: MemoryBlobStore) -> dict[str, bytes]:
    """The files of the index."""
    return {file.key: await blobs.get(file.key) for file in await archive.files(PROJECT)}


async def test_merged_ranges_are_the_very_files_of_one_range(log: EventLog, database: Database, tmp_path: Path) -> None:
    blobs, at_once = MemoryBlobStore(), MemoryBlobStore()
    archive = Archive(log, blobs, database, week_us, POLICY)
    await archive_in_parts(log, archive, 4)
    many = await archive.files(PROJECT)
    assert await archive.compact(PROJECT) == len(many) - 5
    async with Database.open(f"sqlite:///{tmp_path / 'other.db'}", MIGRATIONS) as other:
        expected = Archive(log, at_once, other, week_us, POLICY)
        await expected.flush(PROJECT)
        assert await archive.files(PROJECT) == await expected.files(PROJECT)
        assert await contents(archive, blobs) == await contents(expected, at_once)
    assert await keys(blobs) == sorted(await contents(archive, blobs))
    assert await archive.compact(PROJECT) == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_failure_at_any_step_loses_nothing_and_leaves_nothing(
    log: EventLog, database: Database, late: bool
) -> None:
    """Two files are written and eight or more deleted: calls of both kinds fail."""
    blobs = Fragile()
    archive = Archive(log, blobs, database, week_us, POLICY)
    failures = 0
    calls = (0, 1, 2, 3, 6, 9)
    for call in calls:
        await append(log, [event(n, at_hour=n % 2) for n in range(call * 60, call * 60 + 2)])
        for start in range(call * 60 + 2, call * 60 + 8, 2):
            await archive.flush(PROJECT)
            await append(log, [event(n, at_hour=n % 2) for n in range(start, start + 2)])
        await archive.flush(PROJECT)
        blobs.calls_left, blobs.late = call, late
        try:
            await archive.compact(PROJECT)
        except Unavailable:
            failures += 1
        blobs.calls_left = -1
        expected = [n for each in calls[: calls.index(call) + 1] for n in range(each * 60, each * 60 + 8)]
        assert ids(await archived(archive, blobs)) == named(*expected)
        # Another process, after a crash.
        archive = Archive(log, blobs, database, week_us, POLICY)
        await archive.compact(PROJECT)
        assert ids(await archived(archive, blobs)) == named(*expected)
        assert await keys(blobs) == sorted(file.key for file in await archive.files(PROJECT))
    assert failures == len(calls)


async def test_ranges_never_overlap_so_that_they_are_read_in_the_order_of_the_log(
    log: EventLog, database: Database
) -> None:
    blobs = MemoryBlobStore()
    archive = Archive(log, blobs, database, week_us, POLICY)
    for part in range(7):
        await append(log, [event(n, at_hour=part % 3) for n in range(part * 9, part * 9 + 9)])
        await archive.flush(PROJECT)
        if part == 3:
            await archive.compact(PROJECT)
    await archive.compact(PROJECT)
    ranges = sorted({(file.first_position, file.last_position) for file in await archive.files(PROJECT)})
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    assert ids(await archived(archive, blobs)) == named(*range(63))


async def test_what_changed_while_it_was_merged_is_left_as_it_is(log: EventLog, database: Database) -> None:
    class Interfering(MemoryBlobStore):
        async def put(self, key: str, data: bytes | Path) -> None:
            await super().put(key, data)
            if self.interfere:
                self.interfere = False
                await index.condemn(PROJECT, 101 * DAY_US)

        interfere = False

    blobs, index = Interfering(), ArchiveIndex(database)
    archive = Archive(log, blobs, database, week_us, POLICY)
    await archive_in_parts(log, archive, 3)
    blobs.interfere = True
    assert await archive.compact(PROJECT) == 0
    assert await archive.files(PROJECT) == []
    await archive.trim(PROJECT, 101 * DAY_US)
    assert await keys(blobs) == []


async def test_nothing_of_an_erased_subject_stays_in_files_that_were_merged(log: EventLog, database: Database) -> None:
    blobs = Fragile()
    archive = Archive(log, blobs, database, week_us, POLICY)
    await archive_in_parts(log, archive, 3)
    blobs.calls_left = 7
    with pytest.raises(Unavailable):
        await archive.compact(PROJECT)
    blobs.calls_left = -1

    def rows_of(events: EventBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        users = events.column("k.user_id")
        return np.array([user == "user-3" for user in ([] if users is None else users.to_pylist())])

    eraser = ArchiveEraser(ArchiveIndex(database), blobs, archive)
    assert sum([taken.rows async for taken in eraser.erase(PROJECT, 1_000, rows_of)]) > 0
    await archive.compact(PROJECT)
    for key in await keys(blobs):
        assert b"user-3" not in await blobs.get(key)
    assert await keys(blobs) == sorted(file.key for file in await archive.files(PROJECT))


async def test_the_archive_merges_by_itself(log: EventLog, database: Database) -> None:
    blobs = MemoryBlobStore()
    policy = ArchivePolicy(flush_seconds=0.01, poll_seconds=0.005, compaction=CompactionPolicy(ranges=3))
    archive = Archive(log, blobs, database, week_us, policy)
    running = asyncio.create_task(archive.run())
    try:
        for part in range(5):
            await append(log, [event(n, at_hour=0) for n in range(part * 3, part * 3 + 3)])
            await archive.flush(PROJECT)
        async with asyncio.timeout(20):
            while len(await archive.files(PROJECT)) > 3:  # noqa: ASYNC110  (nobody is told)
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert ids(await archived(archive, blobs)) == named(*range(15))


def test_ranges_of_like_size_are_merged_and_large_ones_are_left_alone() -> None:
    policy = CompactionPolicy(ranges=3, most_events=200_000)

    def chosen(*counts: int, hidden: int = -1) -> list[int]:
        ranges = [ArchivedRange(i * 10 + 1, i * 10 + 10, count, i != hidden) for i, count in enumerate(counts)]
        return [each.event_count for each in due(ranges, policy)]

    assert chosen(5, 5) == []
    assert chosen(5, 6, 7, 8) == [5, 6, 7, 8]
    assert chosen(10_000, 5, 6) == []
    assert chosen(10_000, 5, 20_000, 6, 30_000) == [10_000, 5, 20_000, 6, 30_000]
    assert chosen(500_000, 5, 6, 500_000, 7) == []
    assert chosen(5, 6, 7, 8, hidden=1) == []
    assert chosen(5, 6, 7, 8, 9, hidden=0) == [6, 7, 8, 9]
    assert chosen(100_000, 90_000, 80_000, 20_000, 20_000) == [80_000, 20_000, 20_000]
    assert due([ArchivedRange(i, i, 1, True) for i in range(99)], CompactionPolicy(ranges=0)) == []
