"""What a project no longer wants leaves the log, the archive and the dead letters, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.ingest.archive import Archive
from services.ingest.log import EventLog, Trimmed
from services.ingest.retention import Released, Retention, RetentionPolicy, oldest_kept_us
from services.runtime.blobs import FolderBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.errors import Unavailable
from tests.ingest.archive_worker import DAY_US, HOUR_US, append, event, opened
from tests.ingest.test_archive import archived, ids, named

EVENTS_DAY_US = 100 * DAY_US


class Project:
    """A project's log, archive and retention on a clock that is set by hand."""

    def __init__(self, log: EventLog, archive: Archive, folder: Path) -> None:
        self.log = log
        self.archive = archive
        self.blobs = FolderBlobStore(folder / "blobs")
        self.clock = ManualClock(EVENTS_DAY_US + 10 * HOUR_US)
        self.policies = {"shop": RetentionPolicy(8 * HOUR_US, log_clock=False)}
        self.expired: list[tuple[str, int]] = []
        self.retention = Retention(
            log,
            archive,
            projects=log.projects,
            policy=self.policy,
            expire_dead_letters=self.expire,
            clock=self.clock,
            every_seconds=0.01,
        )

    async def policy(self, project: str) -> RetentionPolicy:
        """Unknown projects fail."""
        if project not in self.policies:
            raise Unavailable("the settings are gone")
        return self.policies[project]

    async def expire(self, project: str, before_us: int) -> int:
        """Counts one."""
        self.expired.append((project, before_us))
        return 1


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    """One with events of hours 0 to 4, one batch each."""
    async with opened(tmp_path) as (log, archive):
        for hour in range(5):
            await append(log, [event(n, at_hour=hour) for n in range(hour * 10, hour * 10 + 10)])
        yield Project(log, archive, tmp_path)


async def test_events_older_than_the_retention_leave_log_archive_and_dead_letters(project: Project) -> None:
    released = await project.retention.apply("shop")
    assert (released.log.batches, released.log.count) == (2, 20)
    assert (released.archive_files, released.dead_letters) == (2, 1)
    assert await project.log.oldest("shop") == 21
    assert ids(await archived(project.archive, project.blobs)) == named(*range(20, 50))
    assert project.expired == [("shop", EVENTS_DAY_US + 2 * HOUR_US)]
    assert (await project.retention.apply("shop")).log == Trimmed(0, 0, 0)


async def test_without_a_retention_everything_is_kept(project: Project) -> None:
    project.policies["shop"] = RetentionPolicy(None, log_clock=False)
    assert await project.retention.apply("shop") == Released(Trimmed(0, 0, 0), 0, 0)
    assert project.expired == []
    assert (await project.log.stats("shop")).count == 50


async def test_on_the_logs_clock_age_counts_from_the_newest_event(project: Project) -> None:
    project.policies["shop"] = RetentionPolicy(3 * HOUR_US, log_clock=True)
    project.clock.set(10_000 * DAY_US)
    released = await project.retention.apply("shop")
    # The newest is of hour 4: hours 0 and 1 are more than 3 hours older.
    assert released.log.count == 20
    assert await project.log.complete_since_us("shop") == EVENTS_DAY_US + HOUR_US + 20


async def test_what_is_trimmed_is_archived_first_so_that_a_repetition_adds_nothing(project: Project) -> None:
    project.policies["shop"] = RetentionPolicy(5 * HOUR_US, log_clock=False)
    await project.retention.apply("shop")
    assert (await project.log.stats("shop")).count == 0
    await append(project.log, [event(n, at_hour=4) for n in range(40, 55)])
    await project.archive.flush("shop")
    assert ids(await archived(project.archive, project.blobs)) == named(*range(50, 55))


async def test_one_project_that_fails_does_not_keep_the_others_waiting(project: Project) -> None:
    await append(project.log, [event(1)], "a-broken-one")
    running = asyncio.create_task(project.retention.run())
    async with asyncio.timeout(10):
        while await project.log.oldest("shop") == 1:  # noqa: ASYNC110 - it is another task's doing
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await project.log.stats("a-broken-one")).count == 1


def test_the_oldest_event_time_kept_follows_the_projects_clock() -> None:
    assert oldest_kept_us(RetentionPolicy(10, log_clock=False), 100, 50) == 90
    assert oldest_kept_us(RetentionPolicy(10, log_clock=True), 100, 50) == 40
    assert oldest_kept_us(RetentionPolicy(10, log_clock=True), 100, None) is None
    assert oldest_kept_us(RetentionPolicy(None, log_clock=False), 100, 50) is None
