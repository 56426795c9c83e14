"""The listing of the archive: what is archived, by range and hour, in pages that agree with each other."""

from datetime import timedelta
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.ingest.v1.archive_service_pb2 import ListArchiveFilesRequest, ListArchiveFilesResponse
from inkling.ingest.v1.archive_service_pb2_grpc import ArchiveServiceStub
from services.ingest.archive import MIGRATIONS, Archive, ArchivePolicy, read_file
from services.ingest.log import open_log
from services.runtime.blobs import MemoryBlobStore
from services.runtime.database import Database
from tests.ingest import archive_worker
from tests.ingest.archive_worker import DAY_US, HOUR_US, PROJECT, append, week_us
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.processes import SERVICE_KEY, IngestProcess, bearer
from tests.ingest.statuses import failure, reason_of
from tests.ingest.test_ingest_calls import now


async def listed(channel: grpc.aio.Channel, project: Project, **fields: object) -> ListArchiveFilesResponse:
    request = ListArchiveFilesRequest(**fields)  # type: ignore[arg-type]
    response: ListArchiveFilesResponse = await ArchiveServiceStub(channel).ListArchiveFiles(
        request, metadata=project.metadata
    )
    return response


async def test_settling_archives_what_was_just_acknowledged(
    project: Project, channel: grpc.aio.Channel, ingest_process: IngestProcess
) -> None:
    assert (await listed(channel, project, settle=True)).position == 0
    sent = await project.send(*(event(f"e{i}", at=now() - timedelta(hours=i % 3)) for i in range(9)))
    before = await listed(channel, project)
    assert (before.position, list(before.files)) == (0, [])
    after = await listed(channel, project, settle=True)
    assert after.position == sent.position
    assert sum(file.event_count for file in after.files) == 9
    assert not after.HasField("complete_since_time")
    assert after.deduplication_horizon.ToTimedelta() == timedelta(days=7)
    for file in after.files:
        content = (ingest_process.data_dir / "blobs" / file.key).read_bytes()
        assert len(content) == file.size_bytes
        occurred = read_file(content).column("occurred_at").to_pylist()
        times = (file.min_occurred_time.ToMicroseconds(), file.max_occurred_time.ToMicroseconds())
        assert (min(occurred), max(occurred), len(occurred)) == (*times, file.event_count)
        assert (file.first_position, file.last_position) == (1, sent.position)


async def test_pages_end_where_the_first_page_saw_the_archive_end(project: Project, channel: grpc.aio.Channel) -> None:
    first = await project.send(*(event(f"a{i}", at=now() - timedelta(hours=i)) for i in range(5)))
    whole = await listed(channel, project, settle=True)
    keys, token = [], ""
    while True:
        page = await listed(channel, project, settle=True, page_size=2, page_token=token)
        assert page.position == first.position
        keys += [file.key for file in page.files]
        token = page.next_page_token
        if not token:
            break
        # What comes meanwhile is not of this listing.
        await project.send(event(f"b{len(keys)}", at=now()))
        await listed(channel, project, settle=True)
    assert keys == [file.key for file in whole.files]
    assert len((await listed(channel, project)).files) > len(keys)


async def test_times_and_positions_limit_the_listing(project: Project, channel: grpc.aio.Channel) -> None:
    new, old = now(), now() - timedelta(hours=5)
    await project.send(event("old", at=old))
    middle = (await listed(channel, project, settle=True)).position
    await project.send(event("new", at=new))
    whole = (await listed(channel, project, settle=True)).files
    between = Timestamp()
    between.FromDatetime(new - timedelta(hours=2))
    for fields, expected in (
        ({"start_time": between}, whole[1:]),
        ({"end_time": between}, whole[:1]),
        ({"after_position": middle}, whole[1:]),
        ({"last_position": middle}, whole[:1]),
    ):
        assert list((await listed(channel, project, **fields)).files) == list(expected)
    error = await failure(listed(channel, project, after_position=-1))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")


async def test_services_list_any_project_by_name(project: Project, channel: grpc.aio.Channel) -> None:
    await project.send(event("e1", at=now()))
    metadata = bearer(SERVICE_KEY, project.name)
    request = ListArchiveFilesRequest(settle=True)
    assert len((await ArchiveServiceStub(channel).ListArchiveFiles(request, metadata=metadata)).files) == 1


async def test_what_retention_let_go_of_is_told(tmp_path: Path) -> None:
    async with (
        open_log(f"sqlite:///{tmp_path}/log.db") as log,
        Database.open(f"sqlite:///{tmp_path}/index.db", MIGRATIONS) as database,
    ):
        archive = Archive(log, MemoryBlobStore(), database, week_us, ArchivePolicy())
        await append(log, [archive_worker.event(number) for number in range(20)])
        await archive.flush(PROJECT)
        assert await archive.complete_since_us(PROJECT) is None
        await archive.trim(PROJECT, 100 * DAY_US)
        assert await archive.complete_since_us(PROJECT) is None
        await archive.trim(PROJECT, 100 * DAY_US + 2 * HOUR_US)
        # The newest of the second hour was event 16.
        assert await archive.complete_since_us(PROJECT) == 100 * DAY_US + HOUR_US + 16 + 1
        await archive.trim(PROJECT, 100 * DAY_US + HOUR_US)
        assert await archive.complete_since_us(PROJECT) == 100 * DAY_US + HOUR_US + 16 + 1


async def test_what_was_trimmed_before_it_was_archived_is_told(tmp_path: Path) -> None:
    async with (
        open_log(f"sqlite:///{tmp_path}/log.db") as log,
        Database.open(f"sqlite:///{tmp_path}/index.db", MIGRATIONS) as database,
    ):
        archive = Archive(log, MemoryBlobStore(), database, week_us, ArchivePolicy())
        await append(log, [archive_worker.event(1, at_hour=0)])
        await log.trim(PROJECT, 100 * DAY_US + HOUR_US)
        await append(log, [archive_worker.event(2, at_hour=3)])
        await archive.flush(PROJECT)
        assert await archive.complete_since_us(PROJECT) == 100 * DAY_US + 1 + 1
